package commands

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// The shell asks the command itself, with the library's --generate-bash-completion.
const bashCompletion = `_op_shared_sequencer() {
  local cur=${COMP_WORDS[COMP_CWORD]}
  local request=("${COMP_WORDS[@]:0:COMP_CWORD}")
  [[ $cur == -* ]] && request+=("$cur")
  COMPREPLY=($(compgen -W "$("${request[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _op_shared_sequencer op-shared-sequencer
`

const zshCompletion = `#compdef op-shared-sequencer
_op_shared_sequencer() {
  local -a opts
  local cur=${words[-1]}
  if [[ $cur == -* ]]; then
    opts=("${(@f)$(${words[@]:0:#words[@]-1} $cur --generate-bash-completion 2>/dev/null)}")
  else
    opts=("${(@f)$(${words[@]:0:#words[@]-1} --generate-bash-completion 2>/dev/null)}")
  fi
  if [[ -n ${opts[1]} ]]; then _describe 'values' opts; else _files; fi
}
compdef _op_shared_sequencer op-shared-sequencer
`

func completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print a script for the shell: eval \"$(op-shared-sequencer completion bash)\"", ArgsUsage: "bash|zsh",
		Action: func(c *cli.Context) error {
			scripts := map[string]string{"bash": bashCompletion, "zsh": zshCompletion}
			script, ok := scripts[c.Args().First()]
			if !ok || c.NArg() != 1 {
				return usage("for which shell: expected bash or zsh")
			}
			_, err := fmt.Fprint(c.App.Writer, script)
			return err
		},
	}
}
