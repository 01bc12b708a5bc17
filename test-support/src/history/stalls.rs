//! Notices when the machine stands still, as one does that has too much to do. What was recorded
//! then may be late; and if it takes long, a lease that is not renewed dies of it as of a worker
//! that is stopped.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{event::Excuse, recorder::Recorder};

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(10);

/// Less than this is usual between two processes that want the same processor.
const USUAL: Duration = Duration::from_millis(10);

/// More than this is a fault: a third of the shortest lease that is used here, at which it is
/// renewed, and some of that is gone already.
const TOO_LATE: Duration = Duration::from_millis(500);

/// Records each time at which this process was late, until what it returns is dropped.
#[must_use]
pub fn watch(recorder: Recorder) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    watching.spawn(async move {
        loop {
            let asleep = Instant::now();
            tokio::time::sleep(TICK).await;
            let late = asleep.elapsed().saturating_sub(TICK);
            if late > USUAL {
                recorder.late(late);
            }
            if late > TOO_LATE {
                let stood_still =
                    format!("the machine stood still for {:.1} s", late.as_secs_f64());
                recorder.fault(stood_still, Excuse::Once);
            }
        }
    });
    watching
}
