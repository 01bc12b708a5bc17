//! The scenarios, by what they are about.

use crate::run::Scenario;

mod answers;
mod attempts;
mod callbacks;
mod cancellations;
mod clocks;
mod cluster;
mod disk;
mod durability;
mod expiry;
mod functions;
mod gateways;
mod lanes;
mod letters;
mod limits;
mod nats;
mod recreated;
mod results;
mod store;
mod workers;

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    let parts = [
        workers::all(),
        gateways::all(),
        nats::all(),
        limits::all(),
        lanes::all(),
        cluster::all(),
        disk::all(),
        clocks::all(),
        functions::all(),
        answers::all(),
        attempts::all(),
        letters::all(),
        recreated::all(),
        store::all(),
        expiry::all(),
        results::all(),
        cancellations::all(),
        callbacks::all(),
        durability::all(),
    ];
    parts.into_iter().flatten().collect()
}
