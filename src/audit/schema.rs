//! The audit trail's schema: an append-only list of steps under a version table.
//!
//! Rules: a step that has been released is never edited; a new one goes to the end of [`STEPS`]. Every statement can be
//! run again without effect, so that the whole can also be given to `psql`. Plain SQL: no extension, no function of our
//! own, no trigger, no `DO` block, nothing that needs more than ownership of the tables.

/// The table that says which steps a database has had.
pub(crate) const VERSIONS: &str = "
CREATE TABLE IF NOT EXISTS agent_checkpoint_schema (
    version INTEGER PRIMARY KEY,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
";

/// Each brings a database from the version of its index to the next.
pub(crate) const STEPS: &[&str] = &[
    // 1: the four tables. Where they exist from before, what they lack is added, and the rule that an agent has one row
    // becomes one that it has one open task. Widths are those of the tables that exist; an id is always given.
    "
CREATE TABLE IF NOT EXISTS agent_tasks (
    id UUID PRIMARY KEY,
    agent_id VARCHAR(255) NOT NULL,
    task_type VARCHAR(50) NOT NULL,
    task_name VARCHAR(500),
    description TEXT,
    repo_scope VARCHAR(255),
    status VARCHAR(50) NOT NULL DEFAULT 'pending',
    progress INTEGER NOT NULL DEFAULT 0,
    slack_channel VARCHAR(50),
    slack_thread_ts VARCHAR(50),
    requested_by VARCHAR(50),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    started_at TIMESTAMPTZ,
    completed_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    result_summary TEXT,
    error_message TEXT,
    artifacts JSONB,
    metadata JSONB
);
CREATE TABLE IF NOT EXISTS agent_checkpoints (
    id UUID PRIMARY KEY,
    task_id UUID REFERENCES agent_tasks (id) ON DELETE CASCADE,
    agent_id VARCHAR(255) NOT NULL,
    checkpoint_type VARCHAR(50) NOT NULL,
    action_description TEXT,
    progress INTEGER,
    tokens_used INTEGER,
    context_limit INTEGER,
    status VARCHAR(50) NOT NULL,
    elapsed_seconds INTEGER,
    error_message TEXT,
    retry_count INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    metadata JSONB
);
CREATE TABLE IF NOT EXISTS human_interventions (
    id UUID PRIMARY KEY,
    task_id UUID REFERENCES agent_tasks (id) ON DELETE CASCADE,
    agent_id VARCHAR(255) NOT NULL,
    intervention_type VARCHAR(50) NOT NULL,
    user_id VARCHAR(50),
    action_details TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS task_artifacts (
    id UUID PRIMARY KEY,
    task_id UUID REFERENCES agent_tasks (id) ON DELETE CASCADE,
    agent_id VARCHAR(255) NOT NULL,
    artifact_type VARCHAR(50),
    artifact_name VARCHAR(255),
    artifact_url TEXT,
    artifact_content TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    metadata JSONB
);

ALTER TABLE agent_tasks ADD COLUMN IF NOT EXISTS description TEXT;
ALTER TABLE agent_tasks ADD COLUMN IF NOT EXISTS repo_scope VARCHAR(255);
ALTER TABLE agent_tasks ADD COLUMN IF NOT EXISTS artifacts JSONB;
ALTER TABLE agent_tasks ADD COLUMN IF NOT EXISTS metadata JSONB;
ALTER TABLE agent_checkpoints ADD COLUMN IF NOT EXISTS context_limit INTEGER;
ALTER TABLE agent_checkpoints ADD COLUMN IF NOT EXISTS retry_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agent_checkpoints ADD COLUMN IF NOT EXISTS metadata JSONB;
ALTER TABLE task_artifacts ADD COLUMN IF NOT EXISTS metadata JSONB;

ALTER TABLE agent_tasks DROP CONSTRAINT IF EXISTS agent_tasks_agent_id_key;
ALTER TABLE agent_tasks DROP CONSTRAINT IF EXISTS agent_tasks_status_check;
ALTER TABLE agent_tasks ADD CONSTRAINT agent_tasks_status_check
    CHECK (status IN ('pending', 'approved', 'running', 'completed', 'failed', 'cancelled')) NOT VALID;

CREATE UNIQUE INDEX IF NOT EXISTS agent_tasks_one_open ON agent_tasks (agent_id)
    WHERE status IN ('pending', 'approved', 'running');
CREATE INDEX IF NOT EXISTS agent_tasks_by_status ON agent_tasks (status, created_at);
CREATE INDEX IF NOT EXISTS agent_tasks_by_agent ON agent_tasks (agent_id, created_at);
CREATE INDEX IF NOT EXISTS agent_tasks_by_start ON agent_tasks (started_at);
CREATE INDEX IF NOT EXISTS agent_checkpoints_by_task ON agent_checkpoints (task_id, created_at);
CREATE INDEX IF NOT EXISTS human_interventions_by_task ON human_interventions (task_id, created_at);
CREATE INDEX IF NOT EXISTS task_artifacts_by_task ON task_artifacts (task_id, created_at);
",
];

/// The version that this program writes.
pub(crate) fn version() -> i32 {
    i32::try_from(STEPS.len()).unwrap_or(i32::MAX)
}

/// The columns of the four tables, each with its table.
pub(crate) fn columns() -> Vec<(&'static str, &'static str)> {
    let tables = STEPS.iter().flat_map(|step| step.split("CREATE TABLE IF NOT EXISTS ").skip(1));
    let parts = tables.filter_map(|table| table.split_once("\n);")?.0.split_once(" (\n"));
    let first = |(table, lines): (&'static str, &'static str)| {
        lines.lines().filter_map(move |line| Some((table, line.split_whitespace().next()?)))
    };
    parts.flat_map(first).collect()
}

/// All of it, for `psql`: it may be run as often as one likes.
pub(crate) fn text() -> String {
    let mut text = String::from("-- The audit trail of agent-checkpoint, for PostgreSQL 13 or newer.\n");
    text.push_str(VERSIONS);
    for (index, step) in STEPS.iter().enumerate() {
        let version = index + 1;
        text.push_str(&format!(
            "\n-- Version {version}{step}INSERT INTO agent_checkpoint_schema (version) VALUES ({version}) ON CONFLICT DO NOTHING;\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_known_with_its_table() {
        let columns = columns();
        let of = |table| columns.iter().filter(|(its, _)| *its == table).count();
        let counts = ["agent_tasks", "agent_checkpoints", "human_interventions", "task_artifacts"].map(of);
        assert_eq!(counts, [19, 14, 7, 9], "{columns:?}");
        assert_eq!(columns[1], ("agent_tasks", "agent_id"));
    }
}
