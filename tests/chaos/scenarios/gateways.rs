//! Gateways that die and end while calls come in.

use futures::FutureExt;

use crate::{
    faults,
    run::Scenario,
    stage::{Setup, Stage},
};

pub(super) fn all() -> Vec<Scenario> {
    let setup = Setup { gateways: 2, ..Setup::default() };
    vec![
        Scenario {
            is_short: true,
            setup: setup.clone(),
            ..Scenario::new("a gateway is killed", |stage| killed(stage).boxed_local())
        },
        Scenario {
            setup,
            ..Scenario::new("a gateway is asked to end", |stage| ended(stage).boxed_local())
        },
    ]
}

async fn killed(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::kill_gateway(stage).await;
}

async fn ended(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::end_gateway(stage).await;
}
