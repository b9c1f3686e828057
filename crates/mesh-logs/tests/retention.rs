//! Old lines go while new ones come, and nothing else does.

mod common;

use common::{DEADLINE, Rig, plain};
use mesh_lab::wait_until;

const KEEP: u64 = 16_000_000;

const LINES: usize = 120_000;

#[tokio::test]
async fn the_oldest_lines_are_deleted_while_new_ones_are_read_and_the_rest_stays_whole() {
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    rig.start_with(|command| command.args(["--set", &format!("logs.keep_bytes={KEEP}")]));
    let filler = "word ".repeat(40);
    let text: String = (0..LINES).map(|number| format!("{number} {filler}\n")).collect();
    rig.append("a.log", text);
    wait_until("all lines, and few enough of them left", DEADLINE, async || {
        let stored = rig.metric("mesh_logs_lines_total{source=\"a\"").await;
        let bytes = rig.metric("mesh_logs_database_bytes{part=\"used\"}").await;
        let deleted = rig.metric("mesh_logs_deleted_lines_total").await;
        match (stored, bytes, deleted) {
            (Some(stored), Some(bytes), Some(deleted))
                if stored == LINES as f64 && bytes <= KEEP as f64 && deleted > 0.0 =>
            {
                Ok(())
            }
            seen => Err(format!("{seen:?}")),
        }
    })
    .await
    .unwrap();
    rig.append("a.log", format!("{LINES} last\n"));
    rig.expect("last", &[&format!("{LINES} last")]).await;
    // By their words too, which are in another part of the database than the lines.
    for (query, end) in [("", LINES + 1), ("word", LINES)] {
        let left = rig.bodies(query).await;
        let first = end - left.len();
        assert!(first > 0 && left.len() > 1000, "{} lines are left", left.len());
        for (number, body) in (first..).zip(&left) {
            assert!(body.starts_with(&format!("{number} ")), "{body} at {number}");
        }
    }
    rig.stop();
}
