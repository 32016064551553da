# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_agent_checkpoint_global_optspecs
    string join \n json q/quiet v/verbose color= config= env-file= cache= h/help V/version
end

function __fish_agent_checkpoint_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_agent_checkpoint_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_agent_checkpoint_using_subcommand
    set -l cmd (__fish_agent_checkpoint_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -s V -l version -d 'Print version'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "emit" -d 'Record one checkpoint and deliver what is due'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "run" -d 'Run a command and report its start, its progress and its end'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "stream" -d 'Record JSON lines from standard input, one checkpoint each'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "ask" -d 'Put a question with buttons to a person and wait for the answer'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "answer" -d 'Tell what became of a question, or answer it here'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "replies" -d 'Print what people wrote in the agent\'s thread since the last look'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "tasks" -d 'List tasks'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "show" -d 'Show one task with its checkpoints, artifacts and interventions'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "metrics" -d 'Per-day totals of tasks'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "flush" -d 'Deliver everything that is waiting'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "db" -d 'Print the Postgres schema, or bring a database up to it'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "serve" -d 'Answer over HTTP: tasks and metrics as JSON, and what people do in Slack'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "doctor" -d 'Check every part of the set-up and say how to mend what is broken'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "completions" -d 'Print a completion script'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_needs_command" -f -a "man" -d 'Write the manual pages into a directory'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -s s -l status -d 'Where the agent stands [default: checkpoint]' -r -f -a "starting\t''
planning\t''
working\t''
checkpoint\t''
waiting_approval\t''
blocked\t''
error\t''
complete\t''
cancelled\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -s p -l progress -d 'How much is done, 0 to 100' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l tokens -d 'How many tokens are in the context now' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l context-limit -d 'How many tokens the context holds [default: 200000]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l error -d 'What went wrong' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l artifact -d 'Something the agent made (repeatable)' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l meta -d 'Something to keep with the checkpoint (repeatable)' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -s a -l agent-id -d 'Name the agent [default: its session, CI job or user and directory]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -s t -l task-name -d 'Name the task' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l task-type -d 'Say what kind of task it is, such as test, refactor or docs' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l repo -d 'Name the repository [default: the CI system\'s, or that of git\'s origin]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -s c -l channel -d 'Post to this channel [default: SLACK_CHANNEL, else #agent-supervisory]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l thread -d 'Join an existing thread' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l min-interval -d 'The least time between routine messages of a task [default: 30s]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l deadline -d 'Spend at most this long on the network [default: 10s]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l background -d 'Use a courier [default: auto]' -r -f -a "auto\t'Send what is due now; a courier sends the rest'
always\t'Never touch the network here; a courier sends everything'
never\t'Send what is due now; leave the rest to the next call or to flush'"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l context-warn -d 'Warn at this percentage of the context limit [default: 70]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l context-alert -d 'Alert at this percentage of the context limit [default: 85]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -s f -l force -d 'Post now, whatever the interval'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l obey -d 'Exit 20 when a person has asked the agent to stop'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l dry-run -d 'Print what would be recorded and posted; change nothing'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l new -d 'Open a new task and thread'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l strict -d 'Exit 75 when not delivered yet, 78 when refused or misconfigured'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l no-post -d 'Record, but do not post'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand emit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l heartbeat -d 'Refresh the live card this often, 0 for never [default: 30s]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l timeout -d 'Stop the command after this long and exit 124, 0 for no limit' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l kill-after -d 'Kill it this long after it was told to stop [default: 10s]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l tail -d 'How many of its last lines a failure shows, 0 for none [default: 20]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l progress-regex -d 'Find progress in lines: groups percent, or done and total, and action' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l meta -d 'Something to keep with the task\'s first checkpoint (repeatable)' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -s a -l agent-id -d 'Name the agent [default: its session, CI job or user and directory]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -s t -l task-name -d 'Name the task' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l task-type -d 'Say what kind of task it is, such as test, refactor or docs' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l repo -d 'Name the repository [default: the CI system\'s, or that of git\'s origin]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -s c -l channel -d 'Post to this channel [default: SLACK_CHANNEL, else #agent-supervisory]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l thread -d 'Join an existing thread' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l min-interval -d 'The least time between routine messages of a task [default: 30s]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l deadline -d 'Spend at most this long on the network [default: 10s]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l background -d 'Use a courier [default: auto]' -r -f -a "auto\t'Send what is due now; a courier sends the rest'
always\t'Never touch the network here; a courier sends everything'
never\t'Send what is due now; leave the rest to the next call or to flush'"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l context-warn -d 'Warn at this percentage of the context limit [default: 70]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l context-alert -d 'Alert at this percentage of the context limit [default: 85]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l new -d 'Open a new task and thread'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l strict -d 'Exit 75 when not delivered yet, 78 when refused or misconfigured'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l no-post -d 'Record, but do not post'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l context-limit -d 'How many tokens the context holds [default: 200000]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -s a -l agent-id -d 'Name the agent [default: its session, CI job or user and directory]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -s t -l task-name -d 'Name the task' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l task-type -d 'Say what kind of task it is, such as test, refactor or docs' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l repo -d 'Name the repository [default: the CI system\'s, or that of git\'s origin]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -s c -l channel -d 'Post to this channel [default: SLACK_CHANNEL, else #agent-supervisory]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l thread -d 'Join an existing thread' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l min-interval -d 'The least time between routine messages of a task [default: 30s]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l deadline -d 'Spend at most this long on the network [default: 10s]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l background -d 'Use a courier [default: auto]' -r -f -a "auto\t'Send what is due now; a courier sends the rest'
always\t'Never touch the network here; a courier sends everything'
never\t'Send what is due now; leave the rest to the next call or to flush'"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l context-warn -d 'Warn at this percentage of the context limit [default: 70]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l context-alert -d 'Alert at this percentage of the context limit [default: 85]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -s f -l force -d 'Post every checkpoint at once, whatever the interval'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l new -d 'Open a new task and thread'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l strict -d 'Exit 75 when not delivered yet, 78 when refused or misconfigured'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l no-post -d 'Record, but do not post'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand stream" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l timeout -d 'How long to wait for an answer' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l on-timeout -d 'What no answer exits with: fail 124, reject 10, approve 0' -r -f -a "fail\t'124'
reject\t'10, as when it is rejected'
approve\t'0, as when it is approved'"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l choice -d 'Something to choose, in place of approve and reject (repeatable)' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l approver -d 'Who may answer, by Slack\'s id of the user (repeatable)' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l quorum -d 'How many people have to agree' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l details -d 'More to read before answering; \'-\' reads standard input' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l command -d 'The command that is to be approved, shown whole' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l remind -d 'Remind of it in the thread this often' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -s a -l agent-id -d 'Name the agent [default: its session, CI job or user and directory]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -s t -l task-name -d 'Name the task' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l task-type -d 'Say what kind of task it is, such as test, refactor or docs' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l repo -d 'Name the repository [default: the CI system\'s, or that of git\'s origin]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -s c -l channel -d 'Post to this channel [default: SLACK_CHANNEL, else #agent-supervisory]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l thread -d 'Join an existing thread' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l no-wait -d 'Print the request\'s id and do not wait'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l new -d 'Open a new task and thread'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand ask" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -l choice -d 'Choose this' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -l comment -d 'What to say beside the answer' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -l wait -d 'Wait until it is answered or its time is over'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -l approve -d 'Approve it'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -l reject -d 'Reject it'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand answer" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand replies" -s a -l agent-id -d 'Name the agent [default: its session, CI job or user and directory]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand replies" -l wait -d 'Wait for the first one, at most this long' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand replies" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand replies" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand replies" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand replies" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand replies" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand replies" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand replies" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand replies" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -l state -d 'Only those running, failed, completed, cancelled, pending or approved' -r -f -a "running\t''
failed\t''
completed\t''
cancelled\t''
pending\t''
approved\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -l limit -d 'At most this many, the latest first' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -l deadline -d 'With --fleet: spend at most this long on the network [default: 10s]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -l waiting -d 'Only tasks with messages not in Slack: waiting, held back or refused'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -l fleet -d 'Read from the database of all machines (DATABASE_URL), not from the cache'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand tasks" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand show" -l deadline -d 'With --fleet: spend at most this long on the network [default: 10s]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand show" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand show" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand show" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand show" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand show" -l fleet -d 'Read from the database of all machines (DATABASE_URL), not from the cache'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand show" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand show" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand show" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand metrics" -l days -d 'How many days, today among them, counted in UTC' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand metrics" -l deadline -d 'With --fleet: spend at most this long on the network [default: 10s]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand metrics" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand metrics" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand metrics" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand metrics" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand metrics" -l fleet -d 'Read from the database of all machines (DATABASE_URL), not from the cache'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand metrics" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand metrics" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand metrics" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand metrics" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand flush" -s c -l channel -d 'With --rejected: to this channel, where there is no thread yet' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand flush" -l deadline -d 'Give up after this long [default: none]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand flush" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand flush" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand flush" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand flush" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand flush" -l rejected -d 'Send again what Slack or the database refused, once the cause is mended'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand flush" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand flush" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand flush" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand flush" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and not __fish_seen_subcommand_from schema migrate" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and not __fish_seen_subcommand_from schema migrate" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and not __fish_seen_subcommand_from schema migrate" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and not __fish_seen_subcommand_from schema migrate" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and not __fish_seen_subcommand_from schema migrate" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and not __fish_seen_subcommand_from schema migrate" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and not __fish_seen_subcommand_from schema migrate" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and not __fish_seen_subcommand_from schema migrate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and not __fish_seen_subcommand_from schema migrate" -f -a "schema" -d 'Print the schema as SQL that psql can run, as often as one likes'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and not __fish_seen_subcommand_from schema migrate" -f -a "migrate" -d 'Create the tables in DATABASE_URL, or add what they lack'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from schema" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from schema" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from schema" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from schema" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from schema" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from schema" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from schema" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from schema" -s h -l help -d 'Print help'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from migrate" -l deadline -d 'Give up after this long [default: none]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from migrate" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from migrate" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from migrate" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from migrate" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from migrate" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from migrate" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from migrate" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand db; and __fish_seen_subcommand_from migrate" -s h -l help -d 'Print help'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand serve" -l listen -d 'Listen here [default: 127.0.0.1:3001]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand serve" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand serve" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand serve" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand serve" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand serve" -l unit -d 'Print a systemd unit for these settings, and do nothing else'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand serve" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand serve" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand serve" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -l url -d 'With --manifest: where Slack can reach serve [default: it need not]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -s c -l channel -d 'Check this channel instead of the configured one' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -l deadline -d 'Spend at most this long on the network [default: 10s]' -r -f
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -l post -d 'Also send a test message'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -l manifest -d 'Print a Slack app manifest with all that is needed, and do nothing else'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand completions" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand completions" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand completions" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand completions" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand completions" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand completions" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand completions" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand man" -l color -d 'When to use colour' -r -f -a "auto\t''
always\t''
never\t''"
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand man" -l config -d 'Read settings from this file instead of config.toml in the config directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand man" -l env-file -d 'Read variables from this file (KEY=VALUE lines); the real environment wins' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand man" -l cache -d 'Keep state in this file instead of cache.db in the state directory' -r -F
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand man" -l json -d 'Print one JSON object or array on standard output'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand man" -s q -l quiet -d 'Say nothing on standard error but errors'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand man" -s v -l verbose -d 'Say more on standard error: -v of each message, -vv of each request too'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c agent-checkpoint -n "__fish_agent_checkpoint_using_subcommand completions" -f -a "bash zsh fish powershell elvish"
