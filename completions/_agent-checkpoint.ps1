
using namespace System.Management.Automation
using namespace System.Management.Automation.Language

Register-ArgumentCompleter -Native -CommandName 'agent-checkpoint' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)

    $commandElements = $commandAst.CommandElements
    $command = @(
        'agent-checkpoint'
        for ($i = 1; $i -lt $commandElements.Count; $i++) {
            $element = $commandElements[$i]
            if ($element -isnot [StringConstantExpressionAst] -or
                $element.StringConstantType -ne [StringConstantType]::BareWord -or
                $element.Value.StartsWith('-') -or
                $element.Value -eq $wordToComplete) {
                break
        }
        $element.Value
    }) -join ';'

    $completions = @(switch ($command) {
        'agent-checkpoint' {
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('emit', 'emit', [CompletionResultType]::ParameterValue, 'Record one checkpoint and deliver what is due')
            [CompletionResult]::new('run', 'run', [CompletionResultType]::ParameterValue, 'Run a command and report its start, its progress and its end')
            [CompletionResult]::new('stream', 'stream', [CompletionResultType]::ParameterValue, 'Record JSON lines from standard input, one checkpoint each')
            [CompletionResult]::new('tasks', 'tasks', [CompletionResultType]::ParameterValue, 'List tasks')
            [CompletionResult]::new('show', 'show', [CompletionResultType]::ParameterValue, 'Show one task with its checkpoints, artifacts and interventions')
            [CompletionResult]::new('metrics', 'metrics', [CompletionResultType]::ParameterValue, 'Per-day totals of tasks')
            [CompletionResult]::new('flush', 'flush', [CompletionResultType]::ParameterValue, 'Deliver everything that is waiting')
            [CompletionResult]::new('db', 'db', [CompletionResultType]::ParameterValue, 'Print the Postgres schema, or bring a database up to it')
            [CompletionResult]::new('doctor', 'doctor', [CompletionResultType]::ParameterValue, 'Check every part of the set-up and say how to mend what is broken')
            [CompletionResult]::new('completions', 'completions', [CompletionResultType]::ParameterValue, 'Print a completion script')
            [CompletionResult]::new('man', 'man', [CompletionResultType]::ParameterValue, 'Write the manual pages into a directory')
            break
        }
        'agent-checkpoint;emit' {
            [CompletionResult]::new('-s', '-s', [CompletionResultType]::ParameterName, 'Where the agent stands [default: checkpoint]')
            [CompletionResult]::new('--status', '--status', [CompletionResultType]::ParameterName, 'Where the agent stands [default: checkpoint]')
            [CompletionResult]::new('-p', '-p', [CompletionResultType]::ParameterName, 'How much is done, 0 to 100')
            [CompletionResult]::new('--progress', '--progress', [CompletionResultType]::ParameterName, 'How much is done, 0 to 100')
            [CompletionResult]::new('--tokens', '--tokens', [CompletionResultType]::ParameterName, 'How many tokens are in the context now')
            [CompletionResult]::new('--context-limit', '--context-limit', [CompletionResultType]::ParameterName, 'How many tokens the context holds [default: 200000]')
            [CompletionResult]::new('--error', '--error', [CompletionResultType]::ParameterName, 'What went wrong')
            [CompletionResult]::new('--artifact', '--artifact', [CompletionResultType]::ParameterName, 'Something the agent made (repeatable)')
            [CompletionResult]::new('--meta', '--meta', [CompletionResultType]::ParameterName, 'Something to keep with the checkpoint (repeatable)')
            [CompletionResult]::new('-a', '-a', [CompletionResultType]::ParameterName, 'Name the agent [default: its session, CI job or user and directory]')
            [CompletionResult]::new('--agent-id', '--agent-id', [CompletionResultType]::ParameterName, 'Name the agent [default: its session, CI job or user and directory]')
            [CompletionResult]::new('-t', '-t', [CompletionResultType]::ParameterName, 'Name the task')
            [CompletionResult]::new('--task-name', '--task-name', [CompletionResultType]::ParameterName, 'Name the task')
            [CompletionResult]::new('--task-type', '--task-type', [CompletionResultType]::ParameterName, 'Say what kind of task it is, such as test, refactor or docs')
            [CompletionResult]::new('--repo', '--repo', [CompletionResultType]::ParameterName, 'Name the repository [default: the CI system''s, or that of git''s origin]')
            [CompletionResult]::new('-c', '-c', [CompletionResultType]::ParameterName, 'Post to this channel [default: SLACK_CHANNEL, else #agent-supervisory]')
            [CompletionResult]::new('--channel', '--channel', [CompletionResultType]::ParameterName, 'Post to this channel [default: SLACK_CHANNEL, else #agent-supervisory]')
            [CompletionResult]::new('--thread', '--thread', [CompletionResultType]::ParameterName, 'Join an existing thread')
            [CompletionResult]::new('--min-interval', '--min-interval', [CompletionResultType]::ParameterName, 'The least time between routine messages of a task [default: 30s]')
            [CompletionResult]::new('--deadline', '--deadline', [CompletionResultType]::ParameterName, 'Spend at most this long on the network [default: 10s]')
            [CompletionResult]::new('--background', '--background', [CompletionResultType]::ParameterName, 'Use a courier [default: auto]')
            [CompletionResult]::new('--context-warn', '--context-warn', [CompletionResultType]::ParameterName, 'Warn at this percentage of the context limit [default: 70]')
            [CompletionResult]::new('--context-alert', '--context-alert', [CompletionResultType]::ParameterName, 'Alert at this percentage of the context limit [default: 85]')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('-f', '-f', [CompletionResultType]::ParameterName, 'Post now, whatever the interval')
            [CompletionResult]::new('--force', '--force', [CompletionResultType]::ParameterName, 'Post now, whatever the interval')
            [CompletionResult]::new('--dry-run', '--dry-run', [CompletionResultType]::ParameterName, 'Print what would be recorded and posted; change nothing')
            [CompletionResult]::new('--new', '--new', [CompletionResultType]::ParameterName, 'Open a new task and thread')
            [CompletionResult]::new('--strict', '--strict', [CompletionResultType]::ParameterName, 'Exit 75 when not delivered yet, 78 when refused or misconfigured')
            [CompletionResult]::new('--no-post', '--no-post', [CompletionResultType]::ParameterName, 'Record, but do not post')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            break
        }
        'agent-checkpoint;run' {
            [CompletionResult]::new('--heartbeat', '--heartbeat', [CompletionResultType]::ParameterName, 'Refresh the live card this often, 0 for never [default: 30s]')
            [CompletionResult]::new('--timeout', '--timeout', [CompletionResultType]::ParameterName, 'Stop the command after this long and exit 124')
            [CompletionResult]::new('--kill-after', '--kill-after', [CompletionResultType]::ParameterName, 'Kill it this long after it was told to stop [default: 10s]')
            [CompletionResult]::new('--tail', '--tail', [CompletionResultType]::ParameterName, 'How many of its last lines a failure shows, 0 for none [default: 20]')
            [CompletionResult]::new('--progress-regex', '--progress-regex', [CompletionResultType]::ParameterName, 'Find progress in lines: groups percent, or done and total, and action')
            [CompletionResult]::new('--meta', '--meta', [CompletionResultType]::ParameterName, 'Something to keep with the task''s first checkpoint (repeatable)')
            [CompletionResult]::new('-a', '-a', [CompletionResultType]::ParameterName, 'Name the agent [default: its session, CI job or user and directory]')
            [CompletionResult]::new('--agent-id', '--agent-id', [CompletionResultType]::ParameterName, 'Name the agent [default: its session, CI job or user and directory]')
            [CompletionResult]::new('-t', '-t', [CompletionResultType]::ParameterName, 'Name the task')
            [CompletionResult]::new('--task-name', '--task-name', [CompletionResultType]::ParameterName, 'Name the task')
            [CompletionResult]::new('--task-type', '--task-type', [CompletionResultType]::ParameterName, 'Say what kind of task it is, such as test, refactor or docs')
            [CompletionResult]::new('--repo', '--repo', [CompletionResultType]::ParameterName, 'Name the repository [default: the CI system''s, or that of git''s origin]')
            [CompletionResult]::new('-c', '-c', [CompletionResultType]::ParameterName, 'Post to this channel [default: SLACK_CHANNEL, else #agent-supervisory]')
            [CompletionResult]::new('--channel', '--channel', [CompletionResultType]::ParameterName, 'Post to this channel [default: SLACK_CHANNEL, else #agent-supervisory]')
            [CompletionResult]::new('--thread', '--thread', [CompletionResultType]::ParameterName, 'Join an existing thread')
            [CompletionResult]::new('--min-interval', '--min-interval', [CompletionResultType]::ParameterName, 'The least time between routine messages of a task [default: 30s]')
            [CompletionResult]::new('--deadline', '--deadline', [CompletionResultType]::ParameterName, 'Spend at most this long on the network [default: 10s]')
            [CompletionResult]::new('--background', '--background', [CompletionResultType]::ParameterName, 'Use a courier [default: auto]')
            [CompletionResult]::new('--context-warn', '--context-warn', [CompletionResultType]::ParameterName, 'Warn at this percentage of the context limit [default: 70]')
            [CompletionResult]::new('--context-alert', '--context-alert', [CompletionResultType]::ParameterName, 'Alert at this percentage of the context limit [default: 85]')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('--new', '--new', [CompletionResultType]::ParameterName, 'Open a new task and thread')
            [CompletionResult]::new('--strict', '--strict', [CompletionResultType]::ParameterName, 'Exit 75 when not delivered yet, 78 when refused or misconfigured')
            [CompletionResult]::new('--no-post', '--no-post', [CompletionResultType]::ParameterName, 'Record, but do not post')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            break
        }
        'agent-checkpoint;stream' {
            [CompletionResult]::new('--context-limit', '--context-limit', [CompletionResultType]::ParameterName, 'How many tokens the context holds [default: 200000]')
            [CompletionResult]::new('-a', '-a', [CompletionResultType]::ParameterName, 'Name the agent [default: its session, CI job or user and directory]')
            [CompletionResult]::new('--agent-id', '--agent-id', [CompletionResultType]::ParameterName, 'Name the agent [default: its session, CI job or user and directory]')
            [CompletionResult]::new('-t', '-t', [CompletionResultType]::ParameterName, 'Name the task')
            [CompletionResult]::new('--task-name', '--task-name', [CompletionResultType]::ParameterName, 'Name the task')
            [CompletionResult]::new('--task-type', '--task-type', [CompletionResultType]::ParameterName, 'Say what kind of task it is, such as test, refactor or docs')
            [CompletionResult]::new('--repo', '--repo', [CompletionResultType]::ParameterName, 'Name the repository [default: the CI system''s, or that of git''s origin]')
            [CompletionResult]::new('-c', '-c', [CompletionResultType]::ParameterName, 'Post to this channel [default: SLACK_CHANNEL, else #agent-supervisory]')
            [CompletionResult]::new('--channel', '--channel', [CompletionResultType]::ParameterName, 'Post to this channel [default: SLACK_CHANNEL, else #agent-supervisory]')
            [CompletionResult]::new('--thread', '--thread', [CompletionResultType]::ParameterName, 'Join an existing thread')
            [CompletionResult]::new('--min-interval', '--min-interval', [CompletionResultType]::ParameterName, 'The least time between routine messages of a task [default: 30s]')
            [CompletionResult]::new('--deadline', '--deadline', [CompletionResultType]::ParameterName, 'Spend at most this long on the network [default: 10s]')
            [CompletionResult]::new('--background', '--background', [CompletionResultType]::ParameterName, 'Use a courier [default: auto]')
            [CompletionResult]::new('--context-warn', '--context-warn', [CompletionResultType]::ParameterName, 'Warn at this percentage of the context limit [default: 70]')
            [CompletionResult]::new('--context-alert', '--context-alert', [CompletionResultType]::ParameterName, 'Alert at this percentage of the context limit [default: 85]')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('-f', '-f', [CompletionResultType]::ParameterName, 'Post every checkpoint at once, whatever the interval')
            [CompletionResult]::new('--force', '--force', [CompletionResultType]::ParameterName, 'Post every checkpoint at once, whatever the interval')
            [CompletionResult]::new('--new', '--new', [CompletionResultType]::ParameterName, 'Open a new task and thread')
            [CompletionResult]::new('--strict', '--strict', [CompletionResultType]::ParameterName, 'Exit 75 when not delivered yet, 78 when refused or misconfigured')
            [CompletionResult]::new('--no-post', '--no-post', [CompletionResultType]::ParameterName, 'Record, but do not post')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            break
        }
        'agent-checkpoint;tasks' {
            [CompletionResult]::new('--state', '--state', [CompletionResultType]::ParameterName, 'Only those running, failed, completed, cancelled, pending or approved')
            [CompletionResult]::new('--limit', '--limit', [CompletionResultType]::ParameterName, 'At most this many, the latest first')
            [CompletionResult]::new('--deadline', '--deadline', [CompletionResultType]::ParameterName, 'With --fleet: spend at most this long on the network [default: 10s]')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('--waiting', '--waiting', [CompletionResultType]::ParameterName, 'Only tasks with messages not in Slack: waiting, held back or refused')
            [CompletionResult]::new('--fleet', '--fleet', [CompletionResultType]::ParameterName, 'Read from the database of all machines (DATABASE_URL), not from the cache')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            break
        }
        'agent-checkpoint;show' {
            [CompletionResult]::new('--deadline', '--deadline', [CompletionResultType]::ParameterName, 'With --fleet: spend at most this long on the network [default: 10s]')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('--fleet', '--fleet', [CompletionResultType]::ParameterName, 'Read from the database of all machines (DATABASE_URL), not from the cache')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            break
        }
        'agent-checkpoint;metrics' {
            [CompletionResult]::new('--days', '--days', [CompletionResultType]::ParameterName, 'How many days, today among them, counted in UTC')
            [CompletionResult]::new('--deadline', '--deadline', [CompletionResultType]::ParameterName, 'With --fleet: spend at most this long on the network [default: 10s]')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('--fleet', '--fleet', [CompletionResultType]::ParameterName, 'Read from the database of all machines (DATABASE_URL), not from the cache')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            break
        }
        'agent-checkpoint;flush' {
            [CompletionResult]::new('-c', '-c', [CompletionResultType]::ParameterName, 'With --rejected: to this channel, where there is no thread yet')
            [CompletionResult]::new('--channel', '--channel', [CompletionResultType]::ParameterName, 'With --rejected: to this channel, where there is no thread yet')
            [CompletionResult]::new('--deadline', '--deadline', [CompletionResultType]::ParameterName, 'Give up after this long [default: none]')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('--rejected', '--rejected', [CompletionResultType]::ParameterName, 'Also send again what Slack refused, once the cause is mended')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            break
        }
        'agent-checkpoint;db' {
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('schema', 'schema', [CompletionResultType]::ParameterValue, 'Print the schema as SQL that psql can run, as often as one likes')
            [CompletionResult]::new('migrate', 'migrate', [CompletionResultType]::ParameterValue, 'Create the tables in DATABASE_URL, or add what they lack')
            break
        }
        'agent-checkpoint;db;schema' {
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            break
        }
        'agent-checkpoint;db;migrate' {
            [CompletionResult]::new('--deadline', '--deadline', [CompletionResultType]::ParameterName, 'Give up after this long [default: none]')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            break
        }
        'agent-checkpoint;doctor' {
            [CompletionResult]::new('-c', '-c', [CompletionResultType]::ParameterName, 'Check this channel instead of the configured one')
            [CompletionResult]::new('--channel', '--channel', [CompletionResultType]::ParameterName, 'Check this channel instead of the configured one')
            [CompletionResult]::new('--deadline', '--deadline', [CompletionResultType]::ParameterName, 'Spend at most this long on the network [default: 10s]')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('--post', '--post', [CompletionResultType]::ParameterName, 'Also send a test message')
            [CompletionResult]::new('--manifest', '--manifest', [CompletionResultType]::ParameterName, 'Print a Slack app manifest with all that is needed, and do nothing else')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            break
        }
        'agent-checkpoint;completions' {
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            break
        }
        'agent-checkpoint;man' {
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'When to use colour')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'Read settings from this file instead of config.toml in the config directory')
            [CompletionResult]::new('--env-file', '--env-file', [CompletionResultType]::ParameterName, 'Read variables from this file (KEY=VALUE lines); the real environment wins')
            [CompletionResult]::new('--cache', '--cache', [CompletionResultType]::ParameterName, 'Keep state in this file instead of cache.db in the state directory')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object or array on standard output')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on standard error but errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Say more on standard error: -v of each message, -vv of each request too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            break
        }
    })

    $completions.Where{ $_.CompletionText -like "$wordToComplete*" } |
        Sort-Object -Property ListItemText
}
