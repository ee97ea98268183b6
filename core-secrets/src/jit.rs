//! Decrypted secrets for a limited time, in locked memory, so that a program that reads the same secret again and
//! again does not make the vault decrypt it again and again.
//!
//! A read sees every write that was acknowledged before it began: while a name is being written, and for reads
//! that began before the write ended, nothing is put into the cache.
//!
//! An expired value is never given out, and whoever runs the cache wipes it at its expiry: [`JitDelivery::wipe_expired`]
//! says when that is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use core_crypto::SecureBytes;
use core_types::SecretName;
use core_types::limits::CACHE_TTL_SECONDS_MAX;
use tokio::sync::Notify;

use crate::store::{Fetch, Fetched, StoreError};

/// How long a value is kept if nothing else is configured, which is also the longest that can be.
pub const DEFAULT_TTL: Duration = Duration::from_secs(CACHE_TTL_SECONDS_MAX);

/// Most bytes of values kept at once, so that the cache fits into the memory an ordinary user may lock (8 MiB).
/// What does not fit is read from the store each time.
pub const CACHED_BYTES_MAX: usize = 6 << 20;

/// Tells how old an entry is.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment; it never goes back.
    fn now(&self) -> Duration;

    /// The time of day, in milliseconds of the Unix epoch: what a secret's own expiry is told in.
    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Time since the machine started, time in suspend included (`CLOCK_BOOTTIME`, clock_gettime(2)): a laptop that
/// slept over the TTL wakes up with an expired cache.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(
            u64::try_from(now.tv_sec).unwrap_or_default(),
            u32::try_from(now.tv_nsec).unwrap_or_default(),
        )
    }
}

/// A store with a cache before it.
#[derive(Debug)]
pub struct JitDelivery<S, C = BootClock> {
    store: S,
    clock: C,
    ttl: Duration,
    next_to_expire: Arc<Notify>,
    cache: Mutex<Cache>,
}

/// When an entry was fetched, and a number that tells it from others of the same moment.
type Age = (Duration, u64);

#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<SecretName, Entry>,
    oldest_first: BTreeMap<Age, SecretName>,
    next_number: u64,
    bytes: usize,
    /// Names that are being written, and by how many at once.
    writing: HashMap<SecretName, usize>,
    /// Raised by whatever makes a value read before it unfit to be kept.
    epoch: u64,
    /// Set by the final flush.
    shut: bool,
}

#[derive(Debug)]
struct Entry {
    value: SecureBytes,
    age: Age,
    /// From when on the store would not give the value any more.
    expires_unix_ms: Option<u64>,
}

impl Entry {
    /// Whether it is younger than the TTL and within its own time.
    fn is_fit(&self, now: Duration, ttl: Duration, unix_ms: u64) -> bool {
        now.saturating_sub(self.age.0) < ttl
            && self.expires_unix_ms.is_none_or(|expires_unix_ms| unix_ms < expires_unix_ms)
    }
}

impl Cache {
    /// Puts a value in; says whether it is the first to expire.
    fn insert(&mut self, name: &SecretName, fetched: Fetched, fetched_at: Duration) -> bool {
        let Fetched { value, expires_unix_ms } = fetched;
        self.remove(name);
        let age = (fetched_at, self.next_number);
        self.next_number += 1;
        self.bytes += value.len();
        self.oldest_first.insert(age, name.clone());
        self.entries.insert(name.clone(), Entry { value, age, expires_unix_ms });
        self.oldest_first.first_key_value().is_some_and(|(oldest, _)| *oldest == age)
    }

    fn remove(&mut self, name: &SecretName) {
        if let Some(entry) = self.entries.remove(name) {
            self.bytes -= entry.value.len();
            self.oldest_first.remove(&entry.age);
        }
    }

    fn clear(&mut self) {
        self.entries = HashMap::new();
        self.oldest_first = BTreeMap::new();
        self.bytes = 0;
        self.epoch += 1;
    }
}

/// Keeps a name out of the cache until [`Self::end`], and makes reads that began before that unfit to be kept.
/// Without an end, when the write's future was dropped and nobody knows whether it took effect, the name stays out.
#[must_use]
struct Writing<'a> {
    cache: &'a Mutex<Cache>,
    name: &'a SecretName,
}

fn lock(cache: &Mutex<Cache>) -> MutexGuard<'_, Cache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Writing<'a> {
    fn begin(cache: &'a Mutex<Cache>, name: &'a SecretName) -> Self {
        let mut locked = lock(cache);
        locked.remove(name);
        *locked.writing.entry(name.clone()).or_default() += 1;
        Self { cache, name }
    }

    fn end(self) {
        let mut cache = lock(self.cache);
        cache.epoch += 1;
        if let Some(writers) = cache.writing.get_mut(self.name) {
            *writers -= 1;
            if *writers == 0 {
                cache.writing.remove(self.name);
            }
        }
    }
}

impl<S: Fetch> JitDelivery<S> {
    /// Puts a cache before a store; `ttl` zero keeps nothing.
    pub fn new(store: S, ttl: Duration) -> Self {
        Self::with_clock(store, ttl, BootClock)
    }
}

impl<S: Fetch, C: Clock> JitDelivery<S, C> {
    /// As [`JitDelivery::new`], with another clock.
    pub fn with_clock(store: S, ttl: Duration, clock: C) -> Self {
        Self { store, clock, ttl, next_to_expire: Arc::default(), cache: Mutex::default() }
    }

    /// Tells `next_to_expire` of each value that expires before all others here, so that whoever sleeps until the next
    /// expiry learns of an earlier one.
    #[must_use]
    pub fn telling(self, next_to_expire: Arc<Notify>) -> Self {
        Self { next_to_expire, ..self }
    }

    /// The store behind the cache, for what neither uses nor changes it, such as listing.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The value of a secret: a copy of its own, from the cache if it is there and younger than the TTL.
    ///
    /// # Errors
    /// As [`crate::store::SecretsStore::get`].
    pub async fn resolve(&self, name: &SecretName) -> Result<SecureBytes, StoreError> {
        let epoch = match self.lookup(name) {
            Ok(value) => return Ok(value),
            Err(epoch) => epoch,
        };
        let fetched = self.store.fetch(name).await?;
        self.keep(name, &fetched, epoch);
        Ok(fetched.value)
    }

    /// Stores a value; afterwards every read sees it.
    ///
    /// # Errors
    /// As [`crate::store::SecretsStore::set`].
    pub async fn set(&self, name: &SecretName, value: SecureBytes) -> Result<(), StoreError> {
        self.change(name, self.store.set(name, value)).await
    }

    /// Removes a secret; afterwards no read sees it.
    ///
    /// # Errors
    /// As [`crate::store::SecretsStore::delete`].
    pub async fn delete(&self, name: &SecretName) -> Result<(), StoreError> {
        self.change(name, self.store.delete(name)).await
    }

    /// Does in the store what changes the value of a name; afterwards every read sees it.
    pub async fn change<T>(&self, name: &SecretName, change: impl Future<Output = T>) -> T {
        let writing = Writing::begin(&self.cache, name);
        let changed = change.await;
        writing.end();
        changed
    }

    /// As [`Self::change`], for what changes the values of several names at once.
    pub async fn change_all<T>(&self, names: &[SecretName], change: impl Future<Output = T>) -> T {
        let writing: Vec<_> = names.iter().map(|name| Writing::begin(&self.cache, name)).collect();
        let changed = change.await;
        writing.into_iter().for_each(Writing::end);
        changed
    }

    /// Wipes what has expired; answers when the next value will, as a time of the clock, and `None` if none is left.
    pub fn wipe_expired(&self) -> Option<Duration> {
        let now = self.clock.now();
        let mut cache = lock(&self.cache);
        loop {
            let (&(fetched_at, _), name) = cache.oldest_first.first_key_value()?;
            let expires_at = fetched_at.saturating_add(self.ttl);
            if now < expires_at {
                return Some(expires_at);
            }
            let name = name.clone();
            cache.remove(&name);
        }
    }

    /// How many values are in memory.
    #[must_use]
    pub fn cached(&self) -> usize {
        lock(&self.cache).entries.len()
    }

    /// Wipes every cached value.
    pub fn flush(&self) {
        lock(&self.cache).clear();
    }

    /// Wipes every cached value and keeps none from now on, not even of reads that are under way.
    pub fn shut(&self) {
        let mut cache = lock(&self.cache);
        cache.shut = true;
        cache.clear();
    }

    /// A copy of the cached value, or else the epoch in which a read of the store begins.
    pub(crate) fn lookup(&self, name: &SecretName) -> Result<SecureBytes, u64> {
        let (now, unix_ms) = (self.clock.now(), self.clock.unix_ms());
        let mut cache = lock(&self.cache);
        match cache.entries.get(name) {
            Some(entry) if entry.is_fit(now, self.ttl, unix_ms) => Ok(entry.value.clone()),
            Some(_) => {
                cache.remove(name);
                Err(cache.epoch)
            }
            None => Err(cache.epoch),
        }
    }

    /// Keeps a copy of what a read that began in `epoch` has found, unless it may be out of date.
    pub(crate) fn keep(&self, name: &SecretName, fetched: &Fetched, epoch: u64) {
        let fetched_at = self.clock.now().saturating_sub(self.cut_short(fetched));
        let mut cache = lock(&self.cache);
        let fits = cache.bytes + fetched.value.len() <= CACHED_BYTES_MAX;
        let stale = cache.epoch != epoch || cache.writing.contains_key(name);
        if cache.shut || stale || !fits || self.ttl.is_zero() {
            return;
        }
        if cache.insert(name, fetched.clone(), fetched_at) {
            self.next_to_expire.notify_one();
        }
    }

    /// What a value's own expiry takes from the TTL: by so much older it counts, to be wiped when it expires.
    fn cut_short(&self, fetched: &Fetched) -> Duration {
        let left = fetched.expires_unix_ms.map(|expires| expires.saturating_sub(self.clock.unix_ms()));
        left.map_or(Duration::ZERO, |left_ms| self.ttl.saturating_sub(Duration::from_millis(left_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_store::InMemoryStore;
    use crate::store::SecretsStore;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    const TTL: Duration = Duration::from_secs(300);

    #[derive(Clone, Default)]
    struct TestClock(Arc<AtomicU64>, Arc<AtomicU64>);

    impl TestClock {
        fn advance(&self, time: Duration) {
            self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap(), Ordering::SeqCst);
        }

        fn set_time_of_day(&self, unix_ms: u64) {
            self.1.store(unix_ms, Ordering::SeqCst);
        }
    }

    impl Clock for TestClock {
        fn now(&self) -> Duration {
            Duration::from_nanos(self.0.load(Ordering::SeqCst))
        }
        fn unix_ms(&self) -> u64 {
            self.1.load(Ordering::SeqCst)
        }
    }

    /// Counts reads, and holds each operation up where a test wants it to wait.
    #[derive(Default)]
    struct CountingStore {
        inner: InMemoryStore,
        reads: AtomicUsize,
        expires_unix_ms: Option<u64>,
        held: std::sync::Mutex<Option<Arc<Gatekeeper>>>,
    }

    #[derive(Default)]
    struct Gatekeeper {
        reached: Notify,
        go_on: Notify,
    }

    impl CountingStore {
        fn reads(&self) -> usize {
            self.reads.load(Ordering::SeqCst)
        }

        /// The next operation waits, after its effect, until it is told to go on.
        fn hold_next(&self) -> Arc<Gatekeeper> {
            let gatekeeper = Arc::new(Gatekeeper::default());
            *self.held.lock().unwrap() = Some(Arc::clone(&gatekeeper));
            gatekeeper
        }

        async fn wait_if_held(&self) {
            let held = self.held.lock().unwrap().take();
            if let Some(gatekeeper) = held {
                gatekeeper.reached.notify_one();
                gatekeeper.go_on.notified().await;
            }
        }
    }

    impl SecretsStore for CountingStore {
        async fn get(&self, name: &SecretName) -> Result<SecureBytes, StoreError> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            let value = self.inner.get(name).await;
            self.wait_if_held().await;
            value
        }
        async fn set(&self, name: &SecretName, value: SecureBytes) -> Result<(), StoreError> {
            self.inner.set(name, value).await?;
            self.wait_if_held().await;
            Ok(())
        }
        async fn delete(&self, name: &SecretName) -> Result<(), StoreError> {
            self.inner.delete(name).await
        }
        async fn list_keys(&self) -> Result<Vec<SecretName>, StoreError> {
            self.inner.list_keys().await
        }
    }

    impl Fetch for CountingStore {
        async fn fetch(&self, name: &SecretName) -> Result<Fetched, StoreError> {
            Ok(Fetched { value: self.get(name).await?, expires_unix_ms: self.expires_unix_ms })
        }
    }

    type TestJit = JitDelivery<CountingStore, TestClock>;

    fn name(text: &str) -> SecretName {
        SecretName::parse(text).unwrap()
    }

    fn bytes(text: &str) -> SecureBytes {
        SecureBytes::copy_of(text.as_bytes())
    }

    async fn jit() -> (Arc<TestJit>, TestClock) {
        let clock = TestClock::default();
        let jit = JitDelivery::with_clock(CountingStore::default(), TTL, clock.clone());
        jit.set(&name("a"), bytes("old")).await.unwrap();
        (Arc::new(jit), clock)
    }

    #[test]
    fn the_default_ttl_is_300_seconds() {
        assert_eq!(DEFAULT_TTL, Duration::from_secs(300));
    }

    #[tokio::test]
    async fn a_second_read_does_not_touch_the_store() {
        let (jit, _) = jit().await;
        for _ in 0..3 {
            assert_eq!(jit.resolve(&name("a")).await.unwrap().expose(), b"old");
        }
        assert_eq!(jit.store().reads(), 1);
    }

    #[tokio::test]
    async fn ttl_expiry_refetches() {
        let (jit, clock) = jit().await;
        jit.resolve(&name("a")).await.unwrap();
        // Past the cache, as another process would.
        jit.store().set(&name("a"), bytes("new")).await.unwrap();
        clock.advance(TTL - Duration::from_nanos(1));
        assert_eq!(jit.resolve(&name("a")).await.unwrap().expose(), b"old");
        clock.advance(Duration::from_nanos(1));
        assert_eq!(jit.resolve(&name("a")).await.unwrap().expose(), b"new", "at age equal to the TTL");
        assert_eq!(jit.store().reads(), 2);
    }

    #[tokio::test]
    async fn a_value_past_its_own_time_is_asked_of_the_store_again() {
        let clock = TestClock::default();
        let store = CountingStore { expires_unix_ms: Some(1_000), ..CountingStore::default() };
        let jit = JitDelivery::with_clock(store, TTL, clock.clone());
        jit.set(&name("a"), bytes("x")).await.unwrap();
        for (unix_ms, reads) in [(0, 1), (999, 1), (1_000, 2), (1_001, 3)] {
            clock.set_time_of_day(unix_ms);
            jit.resolve(&name("a")).await.unwrap();
            assert_eq!(jit.store().reads(), reads, "at {unix_ms}");
        }
    }

    #[tokio::test]
    async fn a_value_is_wiped_when_its_own_time_is_over() {
        let clock = TestClock::default();
        clock.advance(TTL);
        let store = CountingStore { expires_unix_ms: Some(1_000), ..CountingStore::default() };
        let jit = JitDelivery::with_clock(store, TTL, clock.clone());
        jit.set(&name("a"), bytes("x")).await.unwrap();
        jit.resolve(&name("a")).await.unwrap();
        assert_eq!(jit.wipe_expired(), Some(TTL + Duration::from_secs(1)), "and not when the TTL is over");
        clock.advance(Duration::from_secs(1));
        assert_eq!((jit.wipe_expired(), jit.cached()), (None, 0));
    }

    #[tokio::test]
    async fn a_hit_does_not_make_an_entry_younger() {
        let (jit, clock) = jit().await;
        for _ in 0..3 {
            jit.resolve(&name("a")).await.unwrap();
            clock.advance(TTL / 2);
        }
        assert_eq!(jit.store().reads(), 2);
    }

    #[tokio::test]
    async fn what_has_expired_is_wiped_without_being_read() {
        let (jit, clock) = jit().await;
        assert_eq!(jit.wipe_expired(), None, "nothing is kept yet");
        jit.resolve(&name("a")).await.unwrap();
        clock.advance(Duration::from_secs(1));
        jit.set(&name("b"), bytes("other")).await.unwrap();
        jit.resolve(&name("b")).await.unwrap();
        assert_eq!(jit.wipe_expired(), Some(TTL), "the older one");
        clock.advance(TTL - Duration::from_nanos(1_000_000_001));
        assert_eq!((jit.wipe_expired(), jit.cached()), (Some(TTL), 2));
        clock.advance(Duration::from_nanos(1));
        assert_eq!((jit.wipe_expired(), jit.cached()), (Some(TTL + Duration::from_secs(1)), 1));
        clock.advance(Duration::from_secs(1));
        assert_eq!((jit.wipe_expired(), jit.cached()), (None, 0));
        assert_eq!(lock(&jit.cache).bytes, 0);
    }

    #[tokio::test]
    async fn whoever_waits_for_the_next_expiry_is_told_of_the_first_value_and_of_no_later_one() {
        let (jit, clock) = jit().await;
        let told = || {
            let mut told = Box::pin(jit.next_to_expire.notified());
            told.as_mut().enable()
        };
        assert!(!told());
        jit.resolve(&name("a")).await.unwrap();
        assert!(told());
        clock.advance(Duration::from_secs(1));
        jit.set(&name("b"), bytes("other")).await.unwrap();
        jit.resolve(&name("b")).await.unwrap();
        assert!(!told());
    }

    #[tokio::test]
    async fn many_writes_and_reads_of_one_name_leave_one_entry() {
        let (jit, _) = jit().await;
        for _ in 0..100 {
            jit.set(&name("a"), bytes("x")).await.unwrap();
            jit.resolve(&name("a")).await.unwrap();
        }
        assert_eq!((jit.cached(), lock(&jit.cache).oldest_first.len()), (1, 1));
        assert!(lock(&jit.cache).writing.is_empty());
    }

    #[tokio::test]
    async fn flush_clears_cache() {
        let (jit, _) = jit().await;
        jit.resolve(&name("a")).await.unwrap();
        jit.flush();
        assert_eq!((jit.cached(), jit.wipe_expired()), (0, None));
        assert_eq!(lock(&jit.cache).bytes, 0);
        jit.resolve(&name("a")).await.unwrap();
        assert_eq!(jit.store().reads(), 2);
    }

    #[tokio::test]
    async fn the_returned_value_is_a_copy_of_its_own() {
        let (jit, _) = jit().await;
        jit.resolve(&name("a")).await.unwrap();
        let mut copy = jit.resolve(&name("a")).await.unwrap();
        copy.expose_mut().fill(b'x');
        drop(copy);
        assert_eq!(jit.resolve(&name("a")).await.unwrap().expose(), b"old");
        assert_eq!(jit.store().reads(), 1);
    }

    #[tokio::test]
    async fn a_write_invalidates_the_name_it_changed_and_no_other() {
        let (jit, _) = jit().await;
        jit.set(&name("b"), bytes("other")).await.unwrap();
        jit.resolve(&name("a")).await.unwrap();
        jit.resolve(&name("b")).await.unwrap();
        jit.set(&name("a"), bytes("new")).await.unwrap();
        assert_eq!(jit.resolve(&name("a")).await.unwrap().expose(), b"new");
        jit.resolve(&name("b")).await.unwrap();
        assert_eq!(jit.store().reads(), 3, "'b' is still cached");
        jit.delete(&name("a")).await.unwrap();
        assert!(matches!(jit.resolve(&name("a")).await, Err(StoreError::NotFound(_))));
    }

    #[tokio::test]
    async fn a_read_that_began_before_a_write_leaves_nothing_stale() {
        let (jit, _) = jit().await;
        let held = jit.store().hold_next();
        let reader = tokio::spawn({
            let jit = Arc::clone(&jit);
            async move { jit.resolve(&name("a")).await.unwrap() }
        });
        held.reached.notified().await;
        jit.set(&name("a"), bytes("new")).await.unwrap();
        held.go_on.notify_one();
        assert_eq!(reader.await.unwrap().expose(), b"old", "it began before the write ended");
        assert_eq!(jit.resolve(&name("a")).await.unwrap().expose(), b"new");
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_name_while_it_is_being_written() {
        let (jit, _) = jit().await;
        let held = jit.store().hold_next();
        let writer = tokio::spawn({
            let jit = Arc::clone(&jit);
            async move { jit.set(&name("a"), bytes("new")).await.unwrap() }
        });
        held.reached.notified().await;
        jit.resolve(&name("a")).await.unwrap();
        assert_eq!(jit.cached(), 0);
        held.go_on.notify_one();
        writer.await.unwrap();
        assert!(lock(&jit.cache).writing.is_empty());
    }

    #[tokio::test]
    async fn after_a_write_that_was_abandoned_the_name_is_read_from_the_store() {
        let (jit, _) = jit().await;
        let held = jit.store().hold_next();
        let writer = tokio::spawn({
            let jit = Arc::clone(&jit);
            async move { jit.set(&name("a"), bytes("new")).await.unwrap() }
        });
        held.reached.notified().await;
        writer.abort();
        assert!(writer.await.unwrap_err().is_cancelled());
        jit.resolve(&name("a")).await.unwrap();
        assert_eq!(jit.cached(), 0);
    }

    #[tokio::test]
    async fn a_read_under_way_puts_nothing_into_a_cache_that_was_flushed_or_shut() {
        for end in [TestJit::flush, TestJit::shut] {
            let (jit, _) = jit().await;
            let held = jit.store().hold_next();
            let reader = tokio::spawn({
                let jit = Arc::clone(&jit);
                async move { jit.resolve(&name("a")).await.unwrap() }
            });
            held.reached.notified().await;
            end(&jit);
            held.go_on.notify_one();
            reader.await.unwrap();
            assert_eq!(jit.cached(), 0);
        }
    }

    #[tokio::test]
    async fn a_shut_cache_keeps_nothing() {
        let (jit, _) = jit().await;
        jit.resolve(&name("a")).await.unwrap();
        jit.shut();
        jit.resolve(&name("a")).await.unwrap();
        assert_eq!(jit.cached(), 0);
    }

    #[tokio::test]
    async fn a_ttl_of_zero_keeps_nothing() {
        let jit = JitDelivery::with_clock(CountingStore::default(), Duration::ZERO, TestClock::default());
        jit.set(&name("a"), bytes("x")).await.unwrap();
        jit.resolve(&name("a")).await.unwrap();
        assert_eq!(jit.cached(), 0);
    }

    #[tokio::test]
    async fn the_cache_does_not_outgrow_lockable_memory() {
        let (jit, _) = jit().await;
        for number in 0..8 {
            let name = name(&format!("large/{number}"));
            jit.set(&name, SecureBytes::zeroed(1 << 20)).await.unwrap();
            assert_eq!(jit.resolve(&name).await.unwrap().len(), 1 << 20);
        }
        assert!(lock(&jit.cache).bytes <= CACHED_BYTES_MAX);
    }

    /// The variable that makes the next test the child of itself.
    const SLEPT: &str = "PDS_TEST_SLEPT";

    /// In a time namespace (time_namespaces(7)) the machine has slept for as long as one likes.
    #[test]
    fn the_boot_clock_counts_suspend() {
        if std::env::var_os(SLEPT).is_some() {
            let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
            assert!(BootClock.now().as_secs() > u64::try_from(monotonic).unwrap() + 500_000);
            return;
        }
        let as_user =
            ["--user", "--map-root-user"].into_iter().filter(|_| !rustix::process::geteuid().is_root());
        let output = std::process::Command::new("unshare")
            .args(as_user)
            .args(["--time", "--boottime", "1000000", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "jit::tests::the_boot_clock_counts_suspend"])
            .env(SLEPT, "")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("1 passed"));
    }
}
