//! Replays dead letters as `kubectl aq dead replay` does. The second life of a call is a call of
//! its own.

use std::{collections::BTreeSet, time::SystemTime};

use asyncqueue::{
    dead_letters::{
        DeadLetter, DeadLetterContent, DeadLetterKind, DeadLetters, Omitted, Selection,
    },
    directory::QueueEntry,
};
use test_support::{
    history::event::{CallNumber, Step},
    load::function,
    wait::until_in,
};

use super::{Stage, WAIT_TIMEOUT};

impl Stage {
    /// Replays the dead letters of all calls that have had their callback. Every other one succeeds
    /// this time.
    pub(crate) async fn replay_dead(&self) {
        for queue in 0..self.specs.len() {
            let letters = self.dead_letters(queue).await;
            // Of a call with two, which is a fault that the last look finds, none.
            let mut numbers = BTreeSet::new();
            let twice: BTreeSet<_> = letters
                .iter()
                .map(|(_, call)| *call)
                .filter(|call| !numbers.insert(*call))
                .collect();
            for (letter, call) in letters {
                // One that was too large lacks what a run needs.
                if letter.omitted == Omitted::default()
                    && !twice.contains(&call)
                    && self.is_settled(call)
                    && self.recorder.replay(call, self.stored_at(queue, &letter).await)
                {
                    self.replay(queue, &letter, call).await;
                }
            }
        }
    }

    async fn replay(&self, queue: usize, letter: &DeadLetter, call: CallNumber) {
        if call.is_multiple_of(2) {
            self.function.succeeds(call);
        }
        let spec = &self.specs[queue];
        let entry = QueueEntry::new(spec.stream.clone(), spec.subject.clone());
        let callback =
            self.recorder.has(call, |step| matches!(step, Step::CallbackReceived { .. }));
        self.recorder.step(call, Step::Submitted { callback, queue, shares_id: false });
        // A repeat is safe.
        until_in(WAIT_TIMEOUT, "the dead letter is replayed", async || {
            let letters = self.open(queue).await?;
            letters.replay(letter, &entry).await.inspect_err(|error| println!("{error}")).ok()
        })
        .await;
        self.recorder.step(call, Step::Answered { status: 202, retry_after: false });
    }

    async fn dead_letters(&self, queue: usize) -> Vec<(DeadLetter, CallNumber)> {
        let letters = until_in(WAIT_TIMEOUT, "the dead letters are listed", async || {
            self.open(queue).await?.list(&Selection::All).await.ok()
        })
        .await;
        let mut numbered = Vec::new();
        for letter in letters.into_iter().filter(|letter| letter.kind == DeadLetterKind::Call) {
            let content = until_in(WAIT_TIMEOUT, "the dead letter is read", async || {
                self.open(queue).await?.content(&letter).await.ok()
            });
            if let Some(DeadLetterContent::Call(call)) = content.await
                && let Some(number) = function::number_in(call.query.as_deref())
            {
                numbered.push((letter, number));
            }
        }
        numbered
    }

    /// When a dead letter was stored, by the server's clock: that of its worker may be wrong.
    async fn stored_at(&self, queue: usize, letter: &DeadLetter) -> SystemTime {
        let [_, _, dead] = self.specs[queue].streams();
        until_in(WAIT_TIMEOUT, "the dead letter is read", async || {
            let stream = self.js.get_stream_no_info(&dead).await.ok()?;
            Some(stream.get_raw_message(letter.sequence).await.ok()?.time.into())
        })
        .await
    }

    async fn open(&self, queue: usize) -> Option<DeadLetters> {
        DeadLetters::open(&self.js, &self.specs[queue].queue, "openfaas-fn").await.ok()
    }

    /// Whether nothing more comes of the first life of a dead call: its callback was taken, or it
    /// wants none.
    fn is_settled(&self, call: CallNumber) -> bool {
        let wants =
            self.recorder.has(call, |step| matches!(step, Step::Submitted { callback: true, .. }));
        let is_taken = self
            .recorder
            .has(call, |step| matches!(step, Step::CallbackReceived { taken: true, .. }));
        !wants || is_taken
    }
}
