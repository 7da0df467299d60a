//! A bounded resource that clients share: permits, connections, or bytes of memory.
//!
//! The *owner* of a share is a network ([`network_of`](crate::rate::network_of)). When the resource runs short, the
//! largest owner pays first. Freed amounts go to the waiting owner that holds the least. If a share must be taken back,
//! it is the slowest share of the owner that holds the most, and its socket is shut down.
//!
//! Used by the threads of connections and by the listener. It waits for shares, and never for a peer.

use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that every share counts as moved from its beginning on. So a share that has just begun is not a slow one.
const HEAD_START_BYTES: u64 = 1024;
/// When a claim that waits is tried again, if nothing else happens.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// The shortest wait.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// The bounds of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Maximum amount of all shares.
    pub total: usize,
    /// Maximum amount of the shares of one owner.
    pub of_owner: usize,
    /// How long a share is not taken back. It leaves a client the time to finish that any client needs.
    pub spared: Duration,
    /// The directions of the socket that are shut down if its share is taken back.
    pub cut: Shutdown,
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The network of the client.
    pub owner: IpAddr,
    pub amount: usize,
    /// The socket that is shut down to take the share back; `None` if it can't be taken back.
    pub socket: Option<Arc<TcpStream>>,
}

/// A resource of a bounded amount.
#[derive(Debug)]
pub struct Pool {
    bounds: Bounds,
    state: Mutex<State>,
}

/// A share of a pool. Dropping it gives it back.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    id: u64,
    course: Arc<Course>,
}

/// What has become of a share since it was taken.
#[derive(Debug, Default)]
struct Course {
    bytes: AtomicU64,
    is_taken_back: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    held: HashMap<u64, Held>,
    /// The amount of each owner that has shares.
    owners: HashMap<IpAddr, usize>,
    /// The claims that wait, in order of arrival.
    waiting: Vec<Waiting>,
    next_id: u64,
    /// Whether no further share is given.
    is_closed: bool,
}

#[derive(Debug)]
struct Held {
    claim: Claim,
    since: Instant,
    course: Arc<Course>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    claim: Claim,
    /// Set when the claim has been granted.
    granted: Option<Arc<Course>>,
    /// Wakes the thread of this claim.
    wake: Arc<Condvar>,
}

impl Pool {
    #[must_use]
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a share at once, and takes others back for it if need be. Returns `None` if that is not possible.
    ///
    /// A share of an owner with more than twice as much is taken back even if it is spared otherwise: the caller can't
    /// wait.
    pub fn take(self: &Arc<Self>, claim: Claim) -> Option<Share> {
        let claim = self.bounded(claim);
        let mut state = self.state();
        if state.is_closed {
            return None;
        }
        state.make_room(&claim, &self.bounds, Instant::now(), Haste::CannotWait).ok()?;
        let id = state.new_id();
        let course = state.hold(id, claim);
        Some(Share { pool: Arc::clone(self), id, course })
    }

    /// Takes a share, and waits for it if need be. Returns `None` if there is none in time.
    pub fn acquire(self: &Arc<Self>, claim: Claim, wait: Duration) -> Option<Share> {
        let claim = self.bounded(claim);
        let mut state = self.state();
        if state.waiting.is_empty() && state.fits(&claim, &self.bounds) {
            let id = state.new_id();
            let course = state.hold(id, claim);
            return Some(Share { pool: Arc::clone(self), id, course });
        }
        let deadline = Instant::now() + wait;
        let (id, wake) = (state.new_id(), Arc::new(Condvar::new()));
        state.waiting.push(Waiting { id, claim, granted: None, wake: Arc::clone(&wake) });
        loop {
            let now = Instant::now();
            let retry_at = state.settle(&self.bounds, now);
            let at = state.waiting.iter().position(|waiting| waiting.id == id)?;
            if state.waiting[at].granted.is_some() || now >= deadline {
                let granted = state.waiting.remove(at).granted;
                if at == 0
                    && let Some(first) = state.waiting.first()
                {
                    first.wake.notify_one();
                }
                return granted.map(|course| Share { pool: Arc::clone(self), id, course });
            }
            // The first claim tries again for all of them.
            let until = if at == 0 { retry_at.unwrap_or(now + RETRY_WAIT).min(deadline) } else { deadline };
            let pause = until.saturating_duration_since(now).max(PAUSE_MIN);
            state = wake.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes back a share for a client of this owner, whether or not the pool is short. Returns whether there was one.
    pub fn take_back_for(&self, owner: IpAddr) -> bool {
        let claim = Claim { owner, amount: 1, socket: None };
        let mut state = self.state();
        let slowest = state.slowest_of_largest(&claim, &self.bounds, Instant::now(), Haste::CannotWait);
        slowest.map(|id| state.take_back(id, &self.bounds)).is_ok()
    }

    /// Takes back all shares that can be taken back. [`take`](Self::take) gives no further share.
    pub fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let open: Vec<u64> =
            state.held.iter().filter(|(_, held)| held.claim.socket.is_some()).map(|(id, _)| *id).collect();
        open.into_iter().for_each(|id| state.take_back(id, &self.bounds));
    }

    /// A claim that one owner can hold.
    fn bounded(&self, claim: Claim) -> Claim {
        Claim { amount: claim.amount.min(self.bounds.of_owner).min(self.bounds.total), ..claim }
    }
}

impl Share {
    /// Counts bytes that were moved, which make the share a faster one.
    pub fn moved(&self, bytes: usize) {
        self.course.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Keeps the share from being taken back: the client has done its part.
    pub fn keep(&self) {
        if let Some(held) = self.pool.state().held.get_mut(&self.id) {
            held.claim.socket = None;
        }
    }

    /// Whether the share was taken back, and its socket shut down.
    #[must_use]
    pub fn is_taken_back(&self) -> bool {
        self.course.is_taken_back.load(Ordering::Acquire)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        if state.release(self.id).is_some() && !state.waiting.is_empty() {
            state.settle(&self.pool.bounds, Instant::now());
        }
    }
}

/// Whether the caller can wait until a share is no longer spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    CanWait,
    CannotWait,
}

/// There is no room for a claim. The time at which a share can be taken back for it, if there is such a share.
#[derive(Debug)]
struct Short(Option<Instant>);

impl State {
    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn amount_of(&self, owner: IpAddr) -> usize {
        self.owners.get(&owner).copied().unwrap_or(0)
    }

    fn fits_owner(&self, claim: &Claim, bounds: &Bounds) -> bool {
        self.amount_of(claim.owner) + claim.amount <= bounds.of_owner
    }

    fn fits(&self, claim: &Claim, bounds: &Bounds) -> bool {
        self.used + claim.amount <= bounds.total && self.fits_owner(claim, bounds)
    }

    fn hold(&mut self, id: u64, claim: Claim) -> Arc<Course> {
        let course = Arc::<Course>::default();
        self.used += claim.amount;
        *self.owners.entry(claim.owner).or_default() += claim.amount;
        self.held.insert(id, Held { claim, since: Instant::now(), course: Arc::clone(&course) });
        course
    }

    fn release(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.used -= held.claim.amount;
        if let Some(amount) = self.owners.get_mut(&held.claim.owner) {
            *amount -= held.claim.amount;
            if *amount == 0 {
                self.owners.remove(&held.claim.owner);
            }
        }
        Some(held)
    }

    /// Grants claims that wait, the one of the owner with the least first. Returns when to try again for the others.
    fn settle(&mut self, bounds: &Bounds, now: Instant) -> Option<Instant> {
        let (mut blocked, mut retry_at) = (Vec::new(), None);
        loop {
            let open = self.waiting.iter().enumerate();
            let open = open.filter(|(_, waiting)| waiting.granted.is_none() && !blocked.contains(&waiting.claim.owner));
            let next = open.min_by_key(|(at, waiting)| (self.amount_of(waiting.claim.owner), *at)).map(|(at, _)| at)?;
            let claim = self.waiting[next].claim.clone();
            match self.make_room(&claim, bounds, now, Haste::CanWait) {
                Ok(()) => {
                    let id = self.waiting[next].id;
                    let course = self.hold(id, claim);
                    self.waiting[next].granted = Some(course);
                    self.waiting[next].wake.notify_one();
                }
                Err(Short(at)) => {
                    retry_at = retry_at.into_iter().chain(at).min();
                    if self.fits_owner(&claim, bounds) {
                        return retry_at;
                    }
                    // Its own bound concerns no other owner.
                    blocked.push(claim.owner);
                }
            }
        }
    }

    /// Takes shares back until the claim fits.
    fn make_room(&mut self, claim: &Claim, bounds: &Bounds, now: Instant, haste: Haste) -> Result<(), Short> {
        while !self.fits(claim, bounds) {
            let slowest = self.slowest_of_largest(claim, bounds, now, haste)?;
            self.take_back(slowest, bounds);
        }
        Ok(())
    }

    fn take_back(&mut self, id: u64, bounds: &Bounds) {
        if let Some(held) = self.release(id) {
            held.course.is_taken_back.store(true, Ordering::Release);
            // An error means that the client has gone.
            let _ = held.claim.socket.map(|socket| socket.shutdown(bounds.cut));
        }
    }

    /// The share that pays for a claim: of the owners that have no less than the owner of the claim, with the claim,
    /// the slowest share of the largest.
    fn slowest_of_largest(&self, claim: &Claim, bounds: &Bounds, now: Instant, haste: Haste) -> Result<u64, Short> {
        let asked = self.amount_of(claim.owner) + claim.amount;
        let amount = |held: &Held| {
            if held.claim.owner == claim.owner { asked } else { self.amount_of(held.claim.owner) }
        };
        let is_own_bound = !self.fits_owner(claim, bounds);
        let may_pay = |held: &Held| {
            let is_own = held.claim.owner == claim.owner;
            held.claim.socket.is_some() && if is_own_bound { is_own } else { amount(held) >= asked }
        };
        let candidates = || self.held.iter().filter(|(_, held)| may_pay(held));
        let largest = candidates().map(|(_, held)| amount(held)).max().ok_or(Short(None))?;
        let spared = if haste == Haste::CannotWait && largest > 2 * asked { Duration::ZERO } else { bounds.spared };
        let of_largest = || candidates().filter(|(_, held)| amount(held) == largest);
        let ripe = of_largest().filter(|(_, held)| held.since + spared <= now);
        let slowest = ripe.min_by(|(_, one), (_, other)| one.bytes_per_s(now).total_cmp(&other.bytes_per_s(now)));
        let ripens_at = || of_largest().map(|(_, held)| held.since + spared).min();
        slowest.map(|(id, _)| *id).ok_or_else(|| Short(ripens_at()))
    }
}

impl Held {
    fn bytes_per_s(&self, now: Instant) -> f64 {
        let bytes = HEAD_START_BYTES + self.course.bytes.load(Ordering::Relaxed);
        bytes as f64 / now.saturating_duration_since(self.since).as_secs_f64().max(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);
    const SOON: Duration = Duration::from_millis(20);

    fn pool(total: usize, of_owner: usize, spared: Duration) -> Arc<Pool> {
        Pool::new(Bounds { total, of_owner, spared, cut: Shutdown::Both })
    }

    fn owner(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn claim(from: u8, amount: usize) -> Claim {
        Claim { owner: owner(from), amount, socket: None }
    }

    /// A claim whose share can be taken back, and the client's end of its socket.
    fn open_claim(from: u8, amount: usize) -> (Claim, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Some(Arc::new(listener.accept().unwrap().0));
        (Claim { socket, ..claim(from, amount) }, client)
    }

    #[test]
    fn shares_up_to_the_bounds_are_held_at_once() {
        let pool = pool(4, 3, Duration::ZERO);
        let held: Vec<_> = (0..3).map(|_| pool.acquire(claim(1, 1), SOON).unwrap()).collect();
        assert!(pool.acquire(claim(1, 1), SOON).is_none(), "the bound of one owner");
        let other = pool.take(claim(2, 1)).unwrap();
        assert!(pool.take(claim(3, 1)).is_none() && pool.acquire(claim(3, 1), SOON).is_none(), "the bound of all");
        drop(held);
        assert!(pool.take(claim(3, 3)).is_some());
        drop(other);
        assert!(pool.take(claim(3, 100)).is_some(), "one that is larger than the pool takes what one owner may have");
        let state = pool.state();
        assert!(state.used == 0 && state.owners.is_empty() && state.held.is_empty() && state.waiting.is_empty());
    }

    #[test]
    fn what_is_freed_goes_to_the_waiting_owner_with_the_least() {
        let pool = pool(2, 2, Duration::ZERO);
        let held = [pool.take(claim(1, 1)).unwrap(), pool.take(claim(1, 1)).unwrap()];
        let (granted, order) = crossbeam_channel::unbounded();
        thread::scope(|scope| {
            for from in [1, 1, 1, 2] {
                let (pool, granted, before) = (&pool, granted.clone(), pool.state().waiting.len());
                scope.spawn(move || {
                    let share = pool.acquire(claim(from, 1), DEADLINE).unwrap();
                    granted.send(from).unwrap();
                    drop(share);
                });
                while pool.state().waiting.len() == before {
                    thread::yield_now();
                }
            }
            drop(held);
        });
        assert_eq!(order.try_iter().take(2).max(), Some(2), "it is not behind the three");
    }

    #[test]
    fn the_slowest_share_of_the_largest_owner_is_taken_back() {
        let pool = pool(4, 4, Duration::ZERO);
        let (claims, mut clients): (Vec<_>, Vec<_>) = [1, 1, 1, 2].map(|from| open_claim(from, 1)).into_iter().unzip();
        let shares: Vec<_> = claims.into_iter().map(|claim| pool.take(claim).unwrap()).collect();
        shares[0].moved(1 << 20);
        shares[2].moved(1 << 20);
        let newcomer = pool.take(claim(3, 1)).expect("room is made");
        let taken_back: Vec<bool> = shares.iter().map(Share::is_taken_back).collect();
        assert_eq!(taken_back, [false, true, false, false]);
        assert_eq!(clients[1].read(&mut [0]).unwrap(), 0, "its socket is shut down");
        // Now two owners have one share each, and the first has two.
        shares[2].keep();
        let next = pool.take(claim(4, 1)).expect("room is made again");
        assert!(shares[0].is_taken_back() && !shares[2].is_taken_back() && !shares[3].is_taken_back());
        // All have one share. The shares without a socket and the kept share can't be taken back.
        let last = pool.take(claim(5, 1)).expect("the share of an equal owner");
        assert!(shares[3].is_taken_back());
        assert!(pool.take(claim(6, 1)).is_none());
        drop((newcomer, next, last, shares));
        assert_eq!(pool.state().used, 0);
    }

    #[test]
    fn an_owner_never_pays_for_a_larger_one() {
        let pool = pool(10, 8, Duration::ZERO);
        let (small, _client) = open_claim(2, 2);
        let small = pool.take(small).unwrap();
        let (large, _other_client) = open_claim(1, 5);
        let large = pool.take(large).unwrap();
        assert!(pool.take(claim(3, 6)).is_none(), "more than each of them has");
        assert!(!small.is_taken_back() && !large.is_taken_back());
        let (own, _own_client) = open_claim(1, 4);
        let own = pool.take(own).expect("in place of its own");
        assert!(!small.is_taken_back() && large.is_taken_back() && !own.is_taken_back());
    }

    #[test]
    fn a_claim_waits_until_a_share_is_no_longer_spared() {
        let pool = pool(1, 1, Duration::from_millis(50));
        let (slow, _client) = open_claim(1, 1);
        let slow = pool.take(slow).unwrap();
        assert!(pool.take(claim(1, 1)).is_none() && pool.take(claim(2, 1)).is_none(), "it is spared");
        let start = Instant::now();
        let next = pool.acquire(claim(2, 1), DEADLINE);
        assert!(next.is_some() && slow.is_taken_back());
        assert!(start.elapsed() < DEADLINE / 2, "and not only at the end of the wait");
    }

    #[test]
    fn a_much_larger_owner_is_not_spared_if_the_caller_cannot_wait() {
        let pool = pool(3, 3, DEADLINE);
        let (claims, _clients): (Vec<_>, Vec<_>) = [1, 1, 1].map(|from| open_claim(from, 1)).into_iter().unzip();
        let shares: Vec<_> = claims.into_iter().map(|claim| pool.take(claim).unwrap()).collect();
        let newcomer = pool.take(claim(2, 1));
        assert!(newcomer.is_some() && shares.iter().filter(|share| share.is_taken_back()).count() == 1);
        assert!(pool.take(claim(3, 1)).is_none(), "two are not much more than one");
    }

    #[test]
    fn a_share_is_taken_back_for_a_client_although_the_pool_is_not_short() {
        let pool = pool(100, 100, Duration::ZERO);
        assert!(!pool.take_back_for(owner(2)));
        let (claims, _clients): (Vec<_>, Vec<_>) = [1, 1].map(|from| open_claim(from, 1)).into_iter().unzip();
        let shares: Vec<_> = claims.into_iter().map(|claim| pool.take(claim).unwrap()).collect();
        shares[1].moved(1 << 20);
        assert!(pool.take_back_for(owner(2)));
        assert!(shares[0].is_taken_back() && !shares[1].is_taken_back());
    }

    #[test]
    fn a_closed_pool_takes_its_shares_back_and_gives_no_more() {
        let pool = pool(100, 100, DEADLINE);
        let (open, mut client) = open_claim(1, 1);
        let (open, kept) = (pool.take(open).unwrap(), pool.take(claim(1, 1)).unwrap());
        pool.close();
        assert!(open.is_taken_back() && !kept.is_taken_back());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert!(pool.take(claim(2, 1)).is_none());
    }

    #[test]
    fn a_claim_over_the_bound_of_its_owner_does_not_hold_up_others() {
        let pool = pool(3, 2, Duration::ZERO);
        let held = pool.take(claim(1, 2)).unwrap();
        let other = pool.take(claim(2, 1)).unwrap();
        thread::scope(|scope| {
            let own = scope.spawn(|| pool.acquire(claim(1, 1), DEADLINE).is_some());
            while pool.state().waiting.is_empty() {
                thread::yield_now();
            }
            let next = scope.spawn(|| pool.acquire(claim(3, 1), DEADLINE).is_some());
            while pool.state().waiting.len() < 2 {
                thread::yield_now();
            }
            drop(other);
            assert!(next.join().unwrap() && !own.is_finished());
            drop(held);
            assert!(own.join().unwrap());
        });
    }
}
