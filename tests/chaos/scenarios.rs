//! The scenarios, by what they are about.

use crate::run::Scenario;

mod callbacks;
mod cancellations;
mod clocks;
mod cluster;
mod disk;
mod durability;
mod functions;
mod gateways;
mod nats;
mod workers;

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    let parts = [
        workers::all(),
        gateways::all(),
        nats::all(),
        cluster::all(),
        disk::all(),
        clocks::all(),
        functions::all(),
        cancellations::all(),
        callbacks::all(),
        durability::all(),
    ];
    parts.into_iter().flatten().collect()
}
