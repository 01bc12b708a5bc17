//! One budget for the memory that other programs can make this one hold: what clients send, what
//! functions and receivers answer, and what neither side reads. Each use has an account, which has
//! its own metrics. What does not fit is refused or waits; nothing is held without being counted.
//!
//! The budget is three quarters of the memory limit of the container, or less if the limit is
//! small. The rest is for the program itself, and for memory that the allocator keeps between two
//! uses.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::{byte_size::ByteSize, log_limit::LogLimit};

/// The budget if the container has no memory limit, in bytes.
const DEFAULT_BUDGET: usize = 384 << 20;

/// The minimum of a container's memory that is left for the program itself, in bytes.
const MIN_FOR_PROGRAM: usize = 48 << 20;

/// The minimum budget.
const MIN_BUDGET: ByteSize = ByteSize(16 << 20);

/// Minimum interval between two log lines that say that memory is short.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// The memory that a program may hold for others. Clones share the same memory.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<SharedBudget>,
    used: Family<Use, Gauge>,
    refused: Family<Use, Counter>,
}

/// One use of the budget. Clones share the same account.
#[derive(Clone, Debug)]
pub struct Account(Arc<AccountState>);

/// Memory that is taken until this value is dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    account: Account,
    bytes: usize,
}

#[derive(Debug)]
struct SharedBudget {
    total: usize,
    free: Semaphore,
    warnings: LogLimit,
}

#[derive(Debug)]
struct AccountState {
    name: &'static str,
    shared: Arc<SharedBudget>,
    used: Gauge,
    refused: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Use {
    r#use: &'static str,
}

/// Bytes that hold memory of an account until the last reference to them is dropped.
struct AccountedBytes<T> {
    bytes: T,
    _permit: MemoryPermit,
}

/// Returns the budget of a program in this container if no setting names one.
#[must_use]
pub fn default_budget() -> usize {
    budget_within(container_limit())
}

/// Returns the budget within a memory limit, in bytes.
#[must_use]
pub fn budget_within(limit: Option<u64>) -> usize {
    let limit = limit.and_then(|bytes| usize::try_from(bytes).ok());
    limit.map_or(DEFAULT_BUDGET, |bytes| {
        bytes.saturating_sub(MIN_FOR_PROGRAM.max(bytes / 4)).max(MIN_BUDGET.0)
    })
}

/// Parses a budget from a setting. A value below the minimum is an error.
pub fn parse_budget(text: &str) -> Result<ByteSize, String> {
    match text.parse::<ByteSize>() {
        Ok(bytes) if bytes < MIN_BUDGET => Err(format!("it must be at least {MIN_BUDGET}")),
        read => read.map_err(|error| error.to_string()),
    }
}

/// Returns the memory limit of the control group (version 2) of this program, in bytes.
fn container_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let limit =
        fs::read_to_string(format!("/sys/fs/cgroup{}/memory.max", group.trim_end_matches('/')))
            .ok()?;
    // `max` if there is no limit.
    limit.trim().parse().ok()
}

// === impl Budget ===

impl Budget {
    /// Creates a budget of so many bytes, and registers its metrics.
    pub fn new(bytes: usize, registry: &mut Registry) -> Self {
        let total = bytes.min(Semaphore::MAX_PERMITS);
        let (budget, used, refused) =
            (Gauge::<i64>::default(), Family::default(), Family::default());
        budget.set(count(total));
        registry.register("memory_budget_bytes", "memory_budget", budget);
        registry.register(
            "memory_used_bytes",
            "Memory that is held for others, by use",
            used.clone(),
        );
        registry.register(
            "memory_refusals",
            "How often memory_budget had no room, by use",
            refused.clone(),
        );
        let shared = SharedBudget {
            total,
            free: Semaphore::new(total),
            warnings: LogLimit::new(WARN_INTERVAL),
        };
        Self { shared: Arc::new(shared), used, refused }
    }

    /// Returns the account of a use. `name` is one of a fixed set of words.
    #[must_use]
    pub fn account(&self, name: &'static str) -> Account {
        let label = Use { r#use: name };
        Account(Arc::new(AccountState {
            name,
            shared: self.shared.clone(),
            used: self.used.get_or_create(&label).clone(),
            refused: self.refused.get_or_create(&label).clone(),
        }))
    }
}

// === impl Account ===

impl Account {
    /// Takes memory, or counts a refusal. It does not wait, since that would hold what was already
    /// read.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<MemoryPermit> {
        self.acquire(bytes).then(|| MemoryPermit { account: self.clone(), bytes })
    }

    /// Takes memory as soon as there is enough, in the order of the requests. A request for more
    /// than the budget takes the whole budget.
    pub async fn take(&self, bytes: usize) -> MemoryPermit {
        let shared = &self.0.shared;
        let bytes = bytes.min(shared.total);
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Some(taken) = self.try_take(bytes) {
            return taken;
        }
        if let Ok(permit) = shared.free.acquire_many(wanted).await {
            permit.forget();
            self.0.used.inc_by(count(bytes));
        }
        MemoryPermit { account: self.clone(), bytes }
    }

    /// Returns the whole budget.
    #[must_use]
    pub fn budget(&self) -> ByteSize {
        ByteSize(self.0.shared.total)
    }

    /// Returns the memory of the budget that is not taken, in bytes.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.shared.free.available_permits()
    }

    fn acquire(&self, bytes: usize) -> bool {
        let AccountState { name, shared, used, refused } = &*self.0;
        let acquired =
            u32::try_from(bytes).ok().and_then(|bytes| shared.free.try_acquire_many(bytes).ok());
        if let Some(permit) = acquired {
            permit.forget();
            used.inc_by(count(bytes));
            return true;
        }
        refused.inc();
        shared.warn(name);
        false
    }
}

impl SharedBudget {
    fn warn(&self, name: &'static str) {
        if self.warnings.allow(Instant::now()).is_some() {
            let (budget, free) = (ByteSize(self.total), self.free.available_permits());
            warn!(%budget, free, "no memory for {name}: raise memory_budget and the memory limit \
                                  of the container, or add replicas");
        }
    }
}

// === impl MemoryPermit ===

impl MemoryPermit {
    /// Takes more memory, or counts a refusal. Returns whether it was taken.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let has_grown = self.account.acquire(bytes);
        if has_grown {
            self.bytes += bytes;
        }
        has_grown
    }

    /// Returns the whole budget.
    #[must_use]
    pub fn budget(&self) -> ByteSize {
        self.account.budget()
    }

    /// Returns bytes that hold this memory. It is taken until they and all slices of them are
    /// dropped.
    pub fn attach(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(AccountedBytes { bytes, _permit: self })
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        let AccountState { shared, used, .. } = &*self.account.0;
        used.dec_by(count(self.bytes));
        shared.free.add_permits(self.bytes);
    }
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for AccountedBytes<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

fn count(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(bytes: usize) -> Account {
        Budget::new(bytes, &mut Registry::default()).account("tests")
    }

    #[test]
    fn memory_is_taken_until_there_is_none_and_given_back() {
        let account = account(10);
        let mut first = account.try_take(5).unwrap();
        let _second = account.try_take(4).unwrap();
        assert!(account.try_take(2).is_none() && !first.grow(2) && first.grow(1));
        assert_eq!((account.free(), account.0.used.get(), account.0.refused.get()), (0, 10, 2));
        drop(first);
        assert_eq!((account.free(), account.0.used.get()), (6, 4));
        assert!(account.try_take(usize::MAX).is_none());
    }

    #[test]
    fn bytes_hold_their_memory_until_the_last_copy_is_dropped() {
        let account = account(10);
        let bytes = account.try_take(6).unwrap().attach(vec![1, 2, 3]);
        let part = bytes.slice(1..2);
        drop(bytes);
        assert_eq!((&part[..], account.free()), (&[2][..], 4));
        drop(part);
        assert_eq!(account.free(), 10);
    }

    #[tokio::test]
    async fn waiters_get_memory_in_order() {
        let account = account(10);
        let first = account.take(8).await;
        let second = tokio::spawn({
            let account = account.clone();
            async move { account.take(100).await.bytes }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert_eq!(second.await.unwrap(), 10);
        assert_eq!(account.free(), 10);
    }

    #[test]
    fn the_budget_leaves_a_quarter_of_the_limit() {
        assert_eq!(budget_within(Some(512 << 20)), 384 << 20);
        assert_eq!(budget_within(None), DEFAULT_BUDGET);
        assert_eq!(budget_within(Some(128 << 20)), 80 << 20);
        assert_eq!(budget_within(Some(32 << 20)), 16 << 20);
    }
}
