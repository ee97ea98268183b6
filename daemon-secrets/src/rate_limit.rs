//! How often one requester may ask: a token bucket each (GCRA), and a slow one besides for whoever was just denied.
//!
//! Buckets belong to names, not to profiles or connections: locking or connecting again fills none.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use core_types::config::{Config, Rate};
use core_types::protocol::secrets::SecretsDenial;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
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
    limiter: RateLimiter<Reach, Levels, C, NoOpMiddleware<C::Instant>>,
}

/// Whether tokens are taken, or only looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Hand {
    Takes,
    Looks,
}

/// Into whose bucket someone reaches, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reach {
    requester: String,
    hand: Hand,
}

/// How full each bucket is. Looking is answered by the same arithmetic as taking, and leaves it as it was.
#[derive(Default)]
struct Levels(Mutex<HashMap<String, Nanos>>);

impl StateStore for Levels {
    type Key = Reach;

    fn measure_and_replace<T, F, E>(&self, reach: &Reach, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut levels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let level = levels.get_mut(&reach.requester);
        let (answer, after) = measure(level.as_deref().copied())?;
        match (reach.hand, level) {
            (Hand::Looks, _) => {}
            (Hand::Takes, Some(level)) => *level = after,
            (Hand::Takes, None) => drop(levels.insert(reach.requester.clone(), after)),
        }
        Ok(answer)
    }
}

impl<C: Clock + Clone> Buckets<C> {
    fn new(rate: Rate, clock: &C) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(rate.per_second)).allow_burst(at_least_one(rate.burst));
        Self { burst: rate.burst, limiter: RateLimiter::new(quota, Levels::default(), clock.clone()) }
    }

    /// Takes `tokens`, or looks for them; else says how long until that many are there.
    fn reach(&self, requester: &Requester, tokens: NonZeroU32, hand: Hand, clock: &C) -> Result<(), Missing> {
        let reach = Reach { requester: requester.name().to_owned(), hand };
        match self.limiter.check_key_n(&reach, tokens) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(Missing::Wait(until.wait_time_from(clock.now()))),
            Err(_) => Err(Missing::OverBurst),
        }
    }
}

enum Missing {
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

/// The same buckets for whoever may look and takes nothing.
pub(crate) struct OnlyLooking<'a>(pub(crate) &'a dyn Rates);

impl Rates for OnlyLooking<'_> {
    fn spend(&self, requester: &Requester, cost: Cost) -> Result<(), SecretsDenial> {
        self.0.look(requester, cost)
    }

    fn look(&self, requester: &Requester, cost: Cost) -> Result<(), SecretsDenial> {
        self.0.look(requester, cost)
    }

    fn note(&self, _: &Requester, _: bool) {}
}

/// What the rate gate asks.
pub(crate) trait Rates: Send + Sync {
    /// Takes the tokens of an attempt.
    fn spend(&self, requester: &Requester, cost: Cost) -> Result<(), SecretsDenial>;
    /// Answers what [`Self::spend`] would now, and takes nothing.
    fn look(&self, requester: &Requester, cost: Cost) -> Result<(), SecretsDenial>;
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

    fn reach(&self, requester: &Requester, cost: Cost, hand: Hand) -> Result<(), SecretsDenial> {
        if self.was_just_denied(requester) {
            self.reach_into(&self.denied, requester, cost, hand)?;
        }
        self.reach_into(&self.known, requester, cost, hand)
    }

    fn reach_into(
        &self,
        buckets: &Buckets<C>,
        requester: &Requester,
        cost: Cost,
        hand: Hand,
    ) -> Result<(), SecretsDenial> {
        let over_burst = SecretsDenial::BatchOverBurst { names: cost.names, burst: buckets.burst };
        if cost.names > buckets.burst {
            return Err(over_burst);
        }
        let Some(tokens) = NonZeroU32::new(cost.tokens) else { return Ok(()) };
        buckets.reach(requester, tokens, hand, &self.clock).map_err(|missing| match missing {
            Missing::OverBurst => over_burst,
            Missing::Wait(wait) => SecretsDenial::RateLimited { retry_ms: milliseconds(wait) },
        })
    }
}

/// Whole milliseconds, rounded up: an earlier try would be in vain.
fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

impl<C: Clock<Instant: Send + Sync> + Clone + Send + Sync> Rates for RateLimits<C> {
    fn spend(&self, requester: &Requester, cost: Cost) -> Result<(), SecretsDenial> {
        self.reach(requester, cost, Hand::Takes)
    }

    fn look(&self, requester: &Requester, cost: Cost) -> Result<(), SecretsDenial> {
        self.reach(requester, cost, Hand::Looks)
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
    fn looking_says_what_spending_would_and_takes_nothing() {
        let (limits, clock) = limits();
        let (cli, looking) = (requester(None), OnlyLooking(&limits));
        let looked = |tokens| {
            looking.note(&cli, true);
            let first = looking.spend(&cli, cost(tokens));
            (0..100).for_each(|_| assert_eq!(looking.look(&cli, cost(tokens)), first));
            first
        };
        for (tokens, left) in [(3, true), (2, true), (1, false)] {
            let expected = looked(tokens);
            assert_eq!((limits.spend(&cli, cost(tokens)), expected.is_ok()), (expected, left));
        }
        clock.advance(Duration::from_millis(10));
        assert_eq!((looked(1), looked(2).is_ok()), (Ok(()), false));
        limits.note(&cli, true);
        assert_eq!((looked(1), limits.spend(&cli, cost(1)), looked(1).is_ok()), (Ok(()), Ok(()), false));
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
