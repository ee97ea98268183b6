# Completion of pds for bash. Written by: pds completions bash

_pds() {
    local lines
    COMPREPLY=()
    # What pds says, line by line: what kind of words may stand here, then the words.
    mapfile -t lines < <(command pds --complete-words bash "$COMP_CWORD" "${COMP_WORDS[@]}" 2>/dev/null)
    case ${lines[0]-} in
        words) COMPREPLY=("${lines[@]:1}") ;;
        files) compopt -o default ;;
        program)
            if declare -F _command_offset >/dev/null; then
                _command_offset "${lines[1]}"
            elif ((COMP_CWORD == lines[1])); then
                mapfile -t COMPREPLY < <(compgen -c -- "$2")
            else
                compopt -o default
            fi
            ;;
    esac
    # What is not finished wants no space after it.
    [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != */ ]] || compopt -o nospace
}

complete -F _pds pds
