
use builtin;
use str;

set edit:completion:arg-completer[agent-checkpoint] = {|@words|
    fn spaces {|n|
        builtin:repeat $n ' ' | str:join ''
    }
    fn cand {|text desc|
        edit:complex-candidate $text &display=$text' '(spaces (- 14 (wcswidth $text)))$desc
    }
    var command = 'agent-checkpoint'
    for word $words[1..-1] {
        if (str:has-prefix $word '-') {
            break
        }
        set command = $command';'$word
    }
    var completions = [
        &'agent-checkpoint'= {
            cand --color 'When to use colour'
            cand --config 'Read settings from this file instead of config.toml in the config directory'
            cand --env-file 'Read variables from this file (KEY=VALUE lines); the real environment wins'
            cand --cache 'Keep state in this file instead of cache.db in the state directory'
            cand --json 'Print one JSON object or array on standard output'
            cand -q 'Say nothing on standard error but errors'
            cand --quiet 'Say nothing on standard error but errors'
            cand -v 'Say more on standard error (repeatable)'
            cand --verbose 'Say more on standard error (repeatable)'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
            cand -V 'Print version'
            cand --version 'Print version'
            cand emit 'Record one checkpoint and deliver what is due'
            cand tasks 'List tasks'
            cand show 'Show one task with its checkpoints, artifacts and interventions'
            cand flush 'Deliver everything that is waiting'
            cand doctor 'Check every part of the set-up and say how to mend what is broken'
            cand completions 'Print a completion script'
            cand man 'Write the manual pages into a directory'
        }
        &'agent-checkpoint;emit'= {
            cand -s 'Where the agent stands [default: checkpoint]'
            cand --status 'Where the agent stands [default: checkpoint]'
            cand -p 'How much is done, 0 to 100'
            cand --progress 'How much is done, 0 to 100'
            cand --tokens 'How many tokens are in the context now'
            cand --context-limit 'How many tokens the context holds [default: 200000]'
            cand --error 'What went wrong'
            cand --artifact 'Something the agent made (repeatable)'
            cand --meta 'Something to keep with the checkpoint (repeatable)'
            cand -a 'Name the agent [default: its session, CI job or user and directory]'
            cand --agent-id 'Name the agent [default: its session, CI job or user and directory]'
            cand -t 'Name the task'
            cand --task-name 'Name the task'
            cand --task-type 'Say what kind of task it is, such as test, refactor or docs'
            cand --repo 'Name the repository [default: the CI system''s, or that of git''s origin]'
            cand -c 'Post to this channel, #name or id'
            cand --channel 'Post to this channel, #name or id'
            cand --thread 'Join an existing thread'
            cand --min-interval 'The least time between routine messages of a task [default: 30s]'
            cand --deadline 'Spend at most this long on the network [default: 10s]'
            cand --background 'Use a courier [default: auto]'
            cand --context-warn 'Warn at this percentage of the context limit [default: 70]'
            cand --context-alert 'Alert at this percentage of the context limit [default: 85]'
            cand --color 'When to use colour'
            cand --config 'Read settings from this file instead of config.toml in the config directory'
            cand --env-file 'Read variables from this file (KEY=VALUE lines); the real environment wins'
            cand --cache 'Keep state in this file instead of cache.db in the state directory'
            cand -f 'Post now, whatever the interval'
            cand --force 'Post now, whatever the interval'
            cand --dry-run 'Print what would be recorded and posted; change nothing'
            cand --new 'Open a new task and thread'
            cand --strict 'Exit 75 when not delivered yet, 78 when refused or misconfigured'
            cand --no-post 'Record, but do not post'
            cand --json 'Print one JSON object or array on standard output'
            cand -q 'Say nothing on standard error but errors'
            cand --quiet 'Say nothing on standard error but errors'
            cand -v 'Say more on standard error (repeatable)'
            cand --verbose 'Say more on standard error (repeatable)'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
        }
        &'agent-checkpoint;tasks'= {
            cand --state 'Only tasks in this state: running, failed, completed or cancelled'
            cand --limit 'At most this many, the latest first'
            cand --color 'When to use colour'
            cand --config 'Read settings from this file instead of config.toml in the config directory'
            cand --env-file 'Read variables from this file (KEY=VALUE lines); the real environment wins'
            cand --cache 'Keep state in this file instead of cache.db in the state directory'
            cand --waiting 'Only tasks with messages that wait or were refused'
            cand --json 'Print one JSON object or array on standard output'
            cand -q 'Say nothing on standard error but errors'
            cand --quiet 'Say nothing on standard error but errors'
            cand -v 'Say more on standard error (repeatable)'
            cand --verbose 'Say more on standard error (repeatable)'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
        }
        &'agent-checkpoint;show'= {
            cand --color 'When to use colour'
            cand --config 'Read settings from this file instead of config.toml in the config directory'
            cand --env-file 'Read variables from this file (KEY=VALUE lines); the real environment wins'
            cand --cache 'Keep state in this file instead of cache.db in the state directory'
            cand --json 'Print one JSON object or array on standard output'
            cand -q 'Say nothing on standard error but errors'
            cand --quiet 'Say nothing on standard error but errors'
            cand -v 'Say more on standard error (repeatable)'
            cand --verbose 'Say more on standard error (repeatable)'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
        }
        &'agent-checkpoint;flush'= {
            cand --deadline 'Give up after this long [default: none]'
            cand --color 'When to use colour'
            cand --config 'Read settings from this file instead of config.toml in the config directory'
            cand --env-file 'Read variables from this file (KEY=VALUE lines); the real environment wins'
            cand --cache 'Keep state in this file instead of cache.db in the state directory'
            cand --rejected 'Also send again what Slack refused, once the cause is mended'
            cand --json 'Print one JSON object or array on standard output'
            cand -q 'Say nothing on standard error but errors'
            cand --quiet 'Say nothing on standard error but errors'
            cand -v 'Say more on standard error (repeatable)'
            cand --verbose 'Say more on standard error (repeatable)'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
        }
        &'agent-checkpoint;doctor'= {
            cand -c 'Check this channel instead of the configured one'
            cand --channel 'Check this channel instead of the configured one'
            cand --deadline 'Spend at most this long on the network [default: 10s]'
            cand --color 'When to use colour'
            cand --config 'Read settings from this file instead of config.toml in the config directory'
            cand --env-file 'Read variables from this file (KEY=VALUE lines); the real environment wins'
            cand --cache 'Keep state in this file instead of cache.db in the state directory'
            cand --post 'Also send a test message'
            cand --manifest 'Print a Slack app manifest with all that is needed, and do nothing else'
            cand --json 'Print one JSON object or array on standard output'
            cand -q 'Say nothing on standard error but errors'
            cand --quiet 'Say nothing on standard error but errors'
            cand -v 'Say more on standard error (repeatable)'
            cand --verbose 'Say more on standard error (repeatable)'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
        }
        &'agent-checkpoint;completions'= {
            cand --color 'When to use colour'
            cand --config 'Read settings from this file instead of config.toml in the config directory'
            cand --env-file 'Read variables from this file (KEY=VALUE lines); the real environment wins'
            cand --cache 'Keep state in this file instead of cache.db in the state directory'
            cand --json 'Print one JSON object or array on standard output'
            cand -q 'Say nothing on standard error but errors'
            cand --quiet 'Say nothing on standard error but errors'
            cand -v 'Say more on standard error (repeatable)'
            cand --verbose 'Say more on standard error (repeatable)'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
        }
        &'agent-checkpoint;man'= {
            cand --color 'When to use colour'
            cand --config 'Read settings from this file instead of config.toml in the config directory'
            cand --env-file 'Read variables from this file (KEY=VALUE lines); the real environment wins'
            cand --cache 'Keep state in this file instead of cache.db in the state directory'
            cand --json 'Print one JSON object or array on standard output'
            cand -q 'Say nothing on standard error but errors'
            cand --quiet 'Say nothing on standard error but errors'
            cand -v 'Say more on standard error (repeatable)'
            cand --verbose 'Say more on standard error (repeatable)'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
        }
    ]
    $completions[$command]
}
