//! What the tests stand on: real processes, started and ended by the tests themselves.
//!
//! [`cluster`] is the Kubernetes that `make up` starts, [`nats`] runs nats-servers, [`program`] the
//! programs of this project as they are built, [`versions`] those of earlier commits, [`tools`]
//! those of others, [`clients`] clients of `OpenFaaS`, [`python`] the packages of Python that tests
//! run; [`process`] reads what the kernel says of programs, [`http`] is an HTTP server that records
//! what it is asked, [`raw`] speaks HTTP by hand, [`proxy`] is a cable that can be pulled, and
//! [`wait`] waits for conditions, never for a time.
//!
//! [`load`] submits calls of all kinds, and [`history`] checks that they ended as
//! promised; [`rights`] compares what a service account may do with what it does, [`promql`]
//! what alerts and dashboards read with what programs export ([`monitoring`] has those of this
//! project); [`bad_inputs`] is what every door is given that it can't use, [`broken_queues`] queues
//! that cannot work, [`health`] what other tools make of a queue, [`documents`] what the documents
//! say, [`crd_reference`] the one that shows all fields of a queue, and [`chart`] the value sets of
//! the Helm chart.

// A test that can't go on ends, saying why.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

pub mod bad_inputs;
pub mod broken_queues;
pub mod chart;
pub mod clients;
pub mod cluster;
pub mod crd_reference;
pub mod documents;
pub mod health;
pub mod history;
pub mod http;
pub mod load;
pub mod loopback;
pub mod monitoring;
pub mod nats;
pub mod nats_auth;
pub mod process;
pub mod program;
pub mod promql;
pub mod proxy;
pub mod python;
pub mod raw;
pub mod rights;
pub mod stan;
pub mod tools;
pub mod versions;
pub mod wait;
