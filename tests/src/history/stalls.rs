//! Notices when the machine stands still, as one does that has too much to do: a lease that is not renewed dies of that as
//! of a worker that is stopped.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{event::Excuse, recorder::Recorder};

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(50);

/// What is later than this is taken down: a third of the shortest lease that is used here, at which it is renewed, and
/// some of that is gone already.
const LATE: Duration = Duration::from_millis(500);

/// Takes down each time at which this process stood still, until what it returns is dropped.
#[must_use]
pub fn watch(recorder: Recorder) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    watching.spawn(async move {
        loop {
            let asleep = Instant::now();
            tokio::time::sleep(TICK).await;
            let late = asleep.elapsed().saturating_sub(TICK);
            if late > LATE {
                recorder
                    .fault(format!("the machine stood still for {:.1} s", late.as_secs_f64()), Excuse::Once);
            }
        }
    });
    watching
}
