//! Rows of the audit trail, as forwarding writes them.

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::support::Sandbox;

fn rows(cache: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = cache.prepare(sql).expect("a statement");
    let count = statement.column_count();
    let value = |value: ValueRef<'_>| match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => json!(number),
        ValueRef::Real(number) => json!(number),
        ValueRef::Text(text) | ValueRef::Blob(text) => json!(String::from_utf8_lossy(text)),
    };
    let read = statement.query_map([], |row| (0..count).map(|i| Ok(value(row.get_ref(i)?))).collect());
    read.expect("rows").collect::<Result<_, _>>().expect("values")
}

/// A value as SQL has it.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => format!("$q${text}$q$"),
        other => format!("$q${other}$q$"),
    }
}

/// Writes what a cache holds into the database, as forwarding does.
pub(crate) fn forward(cluster: &Cluster, database: &str, sandbox: &Sandbox) {
    let cache = Connection::open(sandbox.cache_path()).expect("the cache");
    let mut sql = Vec::new();
    let all = "id, agent_id, task_type, snapshot, state, channel, channel_id, thread_ts, card, started_at_ms, \
               updated_at_ms, ended_at_ms";
    for row in rows(&cache, &format!("SELECT {all} FROM tasks ORDER BY key")) {
        let [id, agent, kind, snapshot, state, channel, channel_id, thread, card, started, updated, ended] =
            <[Value; 12]>::try_from(row).expect("the columns");
        let snapshot: Value = serde_json::from_str(snapshot.as_str().expect("text")).expect("JSON");
        let name = if snapshot["name"].is_null() { &agent } else { &snapshot["name"] };
        let time = |ms: &Value| format!("to_timestamp({} / 1000.0)", literal(ms).replace("$q$", ""));
        let ours = json!({ "agent_checkpoint": {
            "snapshot": snapshot, "channel": channel, "channel_id": channel_id, "card": card } });
        sql.push(format!(
            "INSERT INTO agent_tasks (id, agent_id, task_type, task_name, repo_scope, status, progress, slack_channel, \
             slack_thread_ts, created_at, started_at, updated_at, completed_at, metadata) VALUES \
             ({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
            literal(&id),
            literal(&agent),
            literal(&kind),
            literal(name),
            literal(&snapshot["repo"]),
            literal(&state),
            literal(&snapshot["progress"]),
            literal(&channel_id),
            literal(&thread),
            time(&started),
            time(&started),
            time(&updated),
            if ended.is_null() { "NULL".to_owned() } else { time(&ended) },
            literal(&ours),
        ));
    }
    let all = "c.key, c.id, t.id, t.agent_id, c.status, c.progress, c.tokens, c.context_limit, c.action, c.error, \
               c.artifacts, c.meta, c.elapsed_ms, c.created_at_ms, c.tail";
    let found = rows(&cache, &format!("SELECT {all} FROM checkpoints c JOIN tasks t ON t.key = c.task"));
    for row in found {
        let [
            key,
            id,
            task,
            agent,
            status,
            progress,
            tokens,
            limit,
            action,
            error,
            artifacts,
            meta,
            elapsed,
            at,
            tail,
        ] = <[Value; 15]>::try_from(row).expect("the columns");
        let mut metadata: Value =
            meta.as_str().map_or_else(|| json!({}), |meta| serde_json::from_str(meta).expect("JSON"));
        metadata["agent_checkpoint"] = json!({ "seq": key, "tail": tail });
        let at = format!("to_timestamp({at} / 1000.0)");
        sql.push(format!(
            "INSERT INTO agent_checkpoints (id, task_id, agent_id, checkpoint_type, status, progress, tokens_used, \
             context_limit, action_description, error_message, elapsed_seconds, created_at, metadata) VALUES \
             ({}, {}, {}, 'progress', {}, {}, {}, {}, {}, {}, {}, {at}, {})",
            literal(&id),
            literal(&task),
            literal(&agent),
            literal(&status),
            literal(&progress),
            literal(&tokens),
            literal(&limit),
            literal(&action),
            literal(&error),
            elapsed.as_i64().expect("a number") / 1000,
            literal(&metadata),
        ));
        let artifacts: Value =
            artifacts.as_str().map_or_else(|| json!([]), |made| serde_json::from_str(made).expect("JSON"));
        for (number, artifact) in artifacts.as_array().expect("a list").iter().enumerate() {
            sql.push(format!(
                "INSERT INTO task_artifacts (id, task_id, agent_id, artifact_type, artifact_name, artifact_url, \
                 created_at, metadata) VALUES (gen_random_uuid(), {}, {}, 'url', {}, {}, {at}, {})",
                literal(&task),
                literal(&agent),
                literal(&artifact["name"]),
                literal(&artifact["target"]),
                literal(&json!({ "agent_checkpoint": { "checkpoint_id": id, "seq": number } })),
            ));
        }
    }
    cluster.sql_in(database, &sql.join(";\n"));
}
