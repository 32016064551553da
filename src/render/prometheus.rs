//! Metrics as Prometheus reads them.

use crate::checkpoint::metrics::Totals;

/// The sums over these days. A scraper has its own idea of time, so that no day is named.
///
/// Only gauges: they read the same in the old text format and in OpenMetrics, which also ends with a line of its own.
pub(crate) fn page(days: &[Totals], open_metrics: bool) -> String {
    let sum = |count: fn(&Totals) -> u64| days.iter().map(count).fold(0, u64::saturating_add);
    let (completed, failed, cancelled) = (sum(|d| d.completed), sum(|d| d.failed), sum(|d| d.cancelled));
    let running = sum(|d| d.total).saturating_sub(completed + failed + cancelled);
    let window = match days.len() {
        1 => "today".to_owned(),
        count => format!("in the last {count} days, today among them"),
    };
    let mut page = String::new();
    let mut family = |name: &str, help: &str, samples: &[(&str, String)]| {
        page.push_str(&format!(
            "# HELP agent_checkpoint_{name} {help}\n# TYPE agent_checkpoint_{name} gauge\n"
        ));
        for (labels, value) in samples {
            page.push_str(&format!("agent_checkpoint_{name}{labels} {value}\n"));
        }
    };
    family(
        "tasks",
        &format!("Tasks that were started {window} (UTC), by their state now."),
        &[
            ("{state=\"running\"}", running.to_string()),
            ("{state=\"completed\"}", completed.to_string()),
            ("{state=\"failed\"}", failed.to_string()),
            ("{state=\"cancelled\"}", cancelled.to_string()),
        ],
    );
    family("tokens", "Tokens that were last in their contexts.", &[("", sum(|d| d.tokens).to_string())]);
    family("window_days", "How many days this is about.", &[("", days.len().to_string())]);
    if let Some(mean) = mean_duration(days) {
        let help = "From start to end, the mean of those that ended.";
        family("task_duration_mean_seconds", help, &[("", mean.to_string())]);
    }
    if open_metrics {
        page.push_str("# EOF\n");
    }
    page
}

/// Each day's mean counts as often as tasks of that day have ended.
fn mean_duration(days: &[Totals]) -> Option<f64> {
    let (mut seconds, mut count) = (0.0, 0.0);
    for day in days {
        if let Some(mean) = day.avg_duration {
            let ended = (day.completed + day.failed + day.cancelled) as f64;
            seconds += mean * ended;
            count += ended;
        }
    }
    (count > 0.0).then(|| seconds / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::metrics::Date;
    use crate::checkpoint::time::Moment;

    fn day(counts: [u64; 4], avg_duration: Option<f64>, tokens: u64) -> Totals {
        let [total, completed, failed, cancelled] = counts;
        Totals { date: Date::of(Moment(0)), total, completed, failed, cancelled, avg_duration, tokens }
    }

    #[test]
    fn days_are_added_up() {
        let days =
            [day([4, 1, 1, 1], Some(10.0), 150), day([3, 1, 0, 0], Some(50.0), 5), day([0; 4], None, 0)];
        let text = page(&days, false);
        assert_eq!(
            text,
            "# HELP agent_checkpoint_tasks Tasks that were started in the last 3 days, today among them (UTC), by \
             their state now.\n\
             # TYPE agent_checkpoint_tasks gauge\n\
             agent_checkpoint_tasks{state=\"running\"} 3\n\
             agent_checkpoint_tasks{state=\"completed\"} 2\n\
             agent_checkpoint_tasks{state=\"failed\"} 1\n\
             agent_checkpoint_tasks{state=\"cancelled\"} 1\n\
             # HELP agent_checkpoint_tokens Tokens that were last in their contexts.\n\
             # TYPE agent_checkpoint_tokens gauge\n\
             agent_checkpoint_tokens 155\n\
             # HELP agent_checkpoint_window_days How many days this is about.\n\
             # TYPE agent_checkpoint_window_days gauge\n\
             agent_checkpoint_window_days 3\n\
             # HELP agent_checkpoint_task_duration_mean_seconds From start to end, the mean of those that ended.\n\
             # TYPE agent_checkpoint_task_duration_mean_seconds gauge\n\
             agent_checkpoint_task_duration_mean_seconds 20\n"
        );
        assert_eq!(page(&days, true), text + "# EOF\n");
        assert!(!page(&[day([1, 0, 0, 0], None, 0)], false).contains("duration"), "nothing has ended");
    }
}
