//! Pulls messages from a durable consumer, never more than there are free slots, handles each in a
//! task of its own under a renewed lease, and settles it.
//!
//! There is one inbox, one task that counts ([`demand`]), and one task for each message. A queue
//! with lanes has several consumers, and [`scheduler`] decides which is asked. The pull requests
//! are sent here, and not by the client library's stream of messages, which requests ahead. What is
//! requested ahead waits in one worker while another is idle.

use std::time::Duration;

use async_nats::jetstream::AckKind;

use self::delivery::Delivery;
pub(crate) use self::{
    in_flight::{InFlightPermit, InFlightSet},
    puller::{Puller, REQUESTED_BUDGET_DIVISOR},
    settle::LEASES_UNTIL_ABANDONED,
};

mod ack;
pub(crate) mod delivery;
mod demand;
mod event;
mod in_flight;
mod lane_list;
mod lanes;
mod lease;
mod poison_headers;
mod puller;
mod scheduler;
mod session;
mod settle;

/// Handles the messages of a consumer.
pub(crate) trait Handler: Send + Sync + 'static {
    /// A value that is dropped when the message is settled.
    type SettleGuard: Send;

    /// Handles one message under a lease that is renewed while it is handled, and returns how to
    /// settle the message. The future may be dropped at any point: the message is then handed back.
    fn handle(
        &self,
        delivery: &Delivery,
        lease: Duration,
        permit: &mut InFlightPermit,
    ) -> impl Future<Output = (AckKind, Self::SettleGuard)> + Send;

    /// Ends a message whose headers or subject can't be read, for this reason.
    fn on_undecodable(
        &self,
        delivery: &Delivery,
        reason: String,
        permit: &mut InFlightPermit,
    ) -> impl Future<Output = AckKind> + Send;

    /// Handles a message of which a delivery may have been lost with the connection. Ensures that
    /// the delivery does not count as an attempt, if no worker has the message.
    fn on_lost_delivery(&self, _delivery: &Delivery) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Prepares a message for being handed back unhandled, after this number of redeliveries were
    /// ignored.
    fn before_nak(
        &self,
        _delivery: &Delivery,
        _redeliveries: u64,
    ) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Does what is necessary for a message that came too late to be handled.
    fn on_late_delivery(&self, _delivery: &Delivery) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}
