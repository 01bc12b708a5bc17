//! Parts of a spec of which most queues say nothing.

use std::{
    ops::{Deref, DerefMut},
    sync::LazyLock,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    CallbackSpec, ConsumerSpec, DeadLetterSpec, FunctionsSpec, InvokeSpec, LimitsSpec, NatsSpec,
    ResultsSpec, RetrySpec, StreamSpec, WorkerSpec,
};

/// A part of a spec that takes no memory of its own as long as it is as the schema has it by
/// default: that is most parts of most queues, of which the operator keeps ten thousand. For all
/// else it is the part itself.
#[derive(Clone, Debug, Default)]
pub struct OrDefault<T>(Option<Box<T>>);

/// A part that can be kept so.
pub trait Part: Clone + Default + PartialEq + 'static {
    /// What it is by default, once for all queues.
    fn by_default() -> &'static Self;
}

macro_rules! part {
    ($part:ty) => {
        impl Part for $part {
            fn by_default() -> &'static Self {
                static DEFAULT: LazyLock<$part> = LazyLock::new(Default::default);
                &DEFAULT
            }
        }
    };
}

part!(CallbackSpec);
part!(ConsumerSpec);
part!(DeadLetterSpec);
part!(FunctionsSpec);
part!(InvokeSpec);
part!(LimitsSpec);
part!(NatsSpec);
part!(ResultsSpec);
part!(RetrySpec);
part!(StreamSpec);
part!(WorkerSpec);

// === impl OrDefault ===

impl<T: Part> From<T> for OrDefault<T> {
    fn from(part: T) -> Self {
        Self((part != *T::by_default()).then(|| Box::new(part)))
    }
}

impl<T: Part> Deref for OrDefault<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or_else(|| T::by_default())
    }
}

impl<T: Part> DerefMut for OrDefault<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: Part> PartialEq for OrDefault<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Part + Serialize> Serialize for OrDefault<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de, T: Part + Deserialize<'de>> Deserialize<'de> for OrDefault<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn only_a_part_that_differs_from_the_default_is_kept() {
        let read = |text| from_value::<OrDefault<RetrySpec>>(text).unwrap();
        let (usual, other) = (read(json!({})), read(json!({ "maxAttempts": 3 })));
        assert!(usual.0.is_none() && read(to_value(RetrySpec::default()).unwrap()).0.is_none());
        assert_eq!((*usual).clone(), RetrySpec::default());
        assert_eq!((other.max_attempts, other.backoff), (3, RetrySpec::default().backoff));
        assert_eq!(to_value(&other).unwrap()["maxAttempts"], 3);
        assert_eq!(to_value(&usual).unwrap(), to_value(RetrySpec::default()).unwrap());
    }

    #[test]
    fn a_part_that_is_changed_and_changed_back_is_the_same() {
        let (mut part, usual) = (OrDefault::<RetrySpec>::default(), OrDefault::default());
        part.max_attempts += 1;
        assert_ne!(part, usual);
        part.max_attempts -= 1;
        assert_eq!(part, usual);
    }
}
