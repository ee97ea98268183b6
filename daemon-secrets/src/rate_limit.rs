//! How often one requester may ask: a token bucket each (GCRA), and a slow one besides for whoever was just denied.
//!
//! Buckets belong to names, not to profiles or connections: locking or connecting again fills none.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use core_types::config::{Config, Rate};
use core_types::protocol::secrets::SecretsDenial;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::acl::Requester;

/// The buckets of all requesters.
pub(crate) struct RateLimits<C: Clock = MonotonicClock> {
    clock: C,
    known: Buckets<C>,
    denied: Buckets<C>,
    just_denied: Mutex<BTreeSet<String>>,
}

struct Buckets<C: Clock> {
    burst: u32,
    limiter: RateLimiter<String, HashMapStateStore<String>, C, NoOpMiddleware<C::Instant>>,
}

impl<C: Clock + Clone> Buckets<C> {
    fn new(rate: Rate, clock: &C) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(rate.per_second)).allow_burst(at_least_one(rate.burst));
        Self { burst: rate.burst, limiter: RateLimiter::hashmap_with_clock(quota, clock.clone()) }
    }

    /// Takes `tokens`; else says how long until that many are there.
    fn take(&self, requester: &Requester, tokens: NonZeroU32, clock: &C) -> Result<(), Taken> {
        match self.limiter.check_key_n(&requester.name().to_owned(), tokens) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(Taken::Wait(until.wait_time_from(clock.now()))),
            Err(_) => Err(Taken::OverBurst),
        }
    }
}

enum Taken {
    Wait(Duration),
    OverBurst,
}

/// What an attempt costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Tokens to pay now.
    pub(crate) tokens: u32,
    /// Names in the whole batch that this is a part of.
    pub(crate) names: u32,
}

/// What the rate gate asks.
pub(crate) trait Rates: Send + Sync {
    /// Takes the tokens of an attempt.
    fn spend(&self, requester: &Requester, cost: Cost) -> Result<(), SecretsDenial>;
    /// Takes note of whether the requester's last attempt was denied for who it is or what it wants.
    fn note(&self, requester: &Requester, denied: bool);
}

impl RateLimits {
    /// Full buckets, of the configured sizes.
    pub(crate) fn new(config: &Config) -> Self {
        Self::with_clock(config, MonotonicClock)
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    pub(crate) fn with_clock(config: &Config, clock: C) -> Self {
        Self {
            known: Buckets::new(config.rate_known, &clock),
            denied: Buckets::new(config.rate_unknown, &clock),
            just_denied: Mutex::default(),
            clock,
        }
    }

    fn was_just_denied(&self, requester: &Requester) -> bool {
        let names = self.just_denied.lock().unwrap_or_else(PoisonError::into_inner);
        names.contains(requester.name())
    }

    fn spend_in(&self, buckets: &Buckets<C>, requester: &Requester, cost: Cost) -> Result<(), SecretsDenial> {
        let over_burst = SecretsDenial::BatchOverBurst { names: cost.names, burst: buckets.burst };
        if cost.names > buckets.burst {
            return Err(over_burst);
        }
        let Some(tokens) = NonZeroU32::new(cost.tokens) else { return Ok(()) };
        buckets.take(requester, tokens, &self.clock).map_err(|taken| match taken {
            Taken::OverBurst => over_burst,
            Taken::Wait(wait) => SecretsDenial::RateLimited { retry_ms: milliseconds(wait) },
        })
    }
}

/// Whole milliseconds, rounded up: an earlier try would be in vain.
fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

impl<C: Clock<Instant: Send + Sync> + Clone + Send + Sync> Rates for RateLimits<C> {
    fn spend(&self, requester: &Requester, cost: Cost) -> Result<(), SecretsDenial> {
        if self.was_just_denied(requester) {
            self.spend_in(&self.denied, requester, cost)?;
        }
        self.spend_in(&self.known, requester, cost)
    }

    fn note(&self, requester: &Requester, denied: bool) {
        let mut names = self.just_denied.lock().unwrap_or_else(PoisonError::into_inner);
        if denied {
            names.insert(requester.name().to_owned());
        } else {
            names.remove(requester.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::requester;
    use governor::clock::FakeRelativeClock;

    fn limits() -> (RateLimits<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let config = Config {
            rate_known: Rate { per_second: 100, burst: 5 },
            rate_unknown: Rate { per_second: 10, burst: 2 },
            ..Config::default()
        };
        (RateLimits::with_clock(&config, clock.clone()), clock)
    }

    fn cost(tokens: u32) -> Cost {
        Cost { tokens, names: tokens }
    }

    #[test]
    fn the_burst_is_spent_and_comes_back_at_the_rate() {
        let (limits, clock) = limits();
        let cli = requester(None);
        for _ in 0..5 {
            assert_eq!(limits.spend(&cli, cost(1)), Ok(()));
        }
        assert_eq!(limits.spend(&cli, cost(1)), Err(SecretsDenial::RateLimited { retry_ms: 10 }));
        clock.advance(Duration::from_millis(9));
        assert_eq!(limits.spend(&cli, cost(1)), Err(SecretsDenial::RateLimited { retry_ms: 1 }));
        clock.advance(Duration::from_millis(1));
        assert_eq!(limits.spend(&cli, cost(1)), Ok(()));
        assert!(limits.spend(&cli, cost(1)).is_err());
    }

    #[test]
    fn one_requesters_bucket_is_not_anothers() {
        let (limits, _) = limits();
        assert_eq!(limits.spend(&requester(None), cost(5)), Ok(()));
        assert!(limits.spend(&requester(None), cost(1)).is_err());
        assert_eq!(limits.spend(&requester(Some("daemon-launcher")), cost(5)), Ok(()));
    }

    #[test]
    fn a_batch_costs_as_many_tokens_as_it_has_names_or_none() {
        let (limits, _) = limits();
        let cli = requester(None);
        assert_eq!(limits.spend(&cli, cost(3)), Ok(()));
        assert_eq!(limits.spend(&cli, cost(3)), Err(SecretsDenial::RateLimited { retry_ms: 10 }));
        assert_eq!(limits.spend(&cli, cost(2)), Ok(()), "what was refused took nothing");
        assert_eq!(limits.spend(&cli, Cost { tokens: 0, names: 1 }), Ok(()));
    }

    #[test]
    fn a_batch_that_can_never_pass_is_told_so() {
        let (limits, _) = limits();
        let over = Err(SecretsDenial::BatchOverBurst { names: 6, burst: 5 });
        assert_eq!(limits.spend(&requester(None), Cost { tokens: 5, names: 6 }), over);
        assert_eq!(limits.spend(&requester(None), cost(5)), Ok(()), "it took nothing");
    }

    #[test]
    fn whoever_was_just_denied_is_slow_until_allowed_again() {
        let (limits, clock) = limits();
        let cli = requester(None);
        limits.note(&cli, true);
        assert_eq!(limits.spend(&cli, cost(2)), Ok(()));
        assert_eq!(limits.spend(&cli, cost(1)), Err(SecretsDenial::RateLimited { retry_ms: 100 }));
        assert_eq!(limits.spend(&requester(Some("backup")), cost(5)), Ok(()), "others are not");
        clock.advance(Duration::from_millis(100));
        assert_eq!(limits.spend(&cli, cost(1)), Ok(()));
        limits.note(&cli, false);
        assert_eq!(limits.spend(&cli, cost(4)), Ok(()));
    }
}
