#compdef pds
# Completion of pds for zsh. Written by: pds completions zsh

_pds() {
    local -a lines values shown
    local line
    # What pds says, line by line: what kind of words may stand here, then the words, each with a tab and what it does.
    lines=("${(@f)$(command pds --complete-words zsh $((CURRENT - 1)) \
        "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    case ${lines[1]} in
        words)
            for line in "${(@)lines[2,-1]}"; do
                values+=("${line%%$'\t'*}")
                [[ $line == *$'\t'* ]] && shown+=("${line%%$'\t'*}  -- ${line#*$'\t'}") || shown+=("$line")
            done
            local -a finish
            (( ${#values} == 1 )) && [[ ${values[1]} == */ ]] && finish=(-S '')
            if [[ "${shown[*]}" == *'  -- '* ]]; then
                compadd "${finish[@]}" -l -d shown -a values
            else
                compadd "${finish[@]}" -a values
            fi
            ;;
        files) _files ;;
        program)
            shift $lines[2] words
            ((CURRENT -= lines[2]))
            _normal
            ;;
    esac
}

if [[ $funcstack[1] == _pds ]]; then
    _pds "$@"
else
    compdef _pds pds
fi
