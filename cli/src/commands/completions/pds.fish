# Completion of pds for fish. Written by: pds completions fish

function __pds_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    # What pds says, line by line: what kind of words may stand here, then the words, each with a tab and what it does.
    set -l lines (command pds --complete-words fish (count $before) $before "$current" 2>/dev/null)
    switch "$lines[1]"
        case words
            test (count $lines) -gt 1; and printf '%s\n' $lines[2..-1]
        case files
            __fish_complete_path "$current"
        case program
            # The line of the program alone, as if pds were not there.
            if test (count $before) -le $lines[2]
                complete -C "$current"
            else
                set -l program (string escape -- $before[(math $lines[2] + 1)..-1])
                complete -C "$program $current"
            end
    end
end

complete -c pds -e
complete -c pds -f -a '(__pds_complete)'
