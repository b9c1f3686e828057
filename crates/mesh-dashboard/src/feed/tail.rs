//! Looking whether mesh-logs has stored lines: once for all readers, each of which then asks for those it wants.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Feed;
use crate::archive::Archive;

/// Time between two looks while somebody follows: readers get lines at most four times a second.
const FOLLOWED: Duration = Duration::from_millis(250);

/// Time between two looks while nobody does. What is missed by a reader that comes back must be known all the same.
const QUIET: Duration = Duration::from_secs(1);

/// Looks until `shutdown`.
pub async fn watch(feed: Arc<Feed>, archive: Arc<Archive>, shutdown: CancellationToken) {
    let mut followers = feed.followers.subscribe();
    let watching = async {
        loop {
            match archive.read(async |reader| reader.last_observed().await).await {
                Ok(until) => feed.stored(until),
                Err(problem) => feed.unreadable(problem.detail),
            }
            if *followers.borrow_and_update() > 0 {
                sleep(FOLLOWED).await;
                continue;
            }
            tokio::select! {
                () = sleep(QUIET) => {}
                // The first one who follows must not wait for the end of the pause.
                _ = followers.changed() => {}
            }
        }
    };
    shutdown.run_until_cancelled(watching).await;
}
