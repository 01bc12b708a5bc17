//! `GET /depth/<namespace>/<queue>`: the number of calls of a queue that have not ended, for
//! autoscalers.
//!
//! The collector of the leader records what it has counted in [`DepthEndpoint`]. A request only
//! reads that: it causes no request to NATS or Kubernetes. A standby counts nothing and redirects
//! to the leader, whose address is in the Lease.

pub(crate) use self::endpoint::{DEPTH_PATH, DepthEndpoint, Leader};

mod answer;
mod endpoint;
mod readings;
