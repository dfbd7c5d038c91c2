//! Who may hold a connection: so many in all, so many from one address. Called by the accept loop.
//!
//! In all is a wait: clients beyond it stay in the listen queue. From one address is a refusal, so that one
//! client that opens connections without end cannot take the places of all others.
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of a listener.
pub(super) struct Places {
    all: Arc<Semaphore>,
    per_address_max: u32,
    taken: Mutex<BTreeMap<IpAddr, u32>>,
}

/// A place that is not given to an address yet.
pub(super) struct Free {
    _permit: OwnedSemaphorePermit,
}

/// A place somebody has; dropped, it is free again.
pub(super) struct Place {
    address: IpAddr,
    places: Arc<Places>,
    _free: Free,
}

impl Places {
    pub(super) fn new(max: u32, per_address_max: u32) -> Arc<Places> {
        let all = Arc::new(Semaphore::new(usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS)));
        Arc::new(Places { all, per_address_max, taken: Mutex::default() })
    }

    /// Waits until a place is free.
    pub(super) async fn free(&self) -> Free {
        Free { _permit: self.all.clone().acquire_owned().await.expect("the semaphore is never closed") }
    }

    /// Gives a free place to `address`; `None` when it has as many as it may.
    pub(super) fn take(self: &Arc<Self>, free: Free, address: IpAddr) -> Option<Place> {
        let address = one_client(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_default();
        if *count >= self.per_address_max {
            return None;
        }
        *count += 1;
        Some(Place { address, places: self.clone(), _free: free })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or the 64-bit prefix a subscriber of IPv6 gets.
fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_address_cannot_take_all_places_and_gives_them_back() {
        let places = Places::new(10, 2);
        let take = async |address: &str| places.take(places.free().await, address.parse().unwrap());
        let (one, two) = (take("10.0.0.1").await, take("::ffff:10.0.0.1").await);
        assert!(one.is_some() && two.is_some());
        assert!(take("10.0.0.1").await.is_none());
        assert!(take("10.0.0.2").await.is_some());
        assert_eq!(places.all.available_permits(), 8, "a refused client holds nothing");
        drop(one);
        assert!(take("10.0.0.1").await.is_some());
        drop(two);
        assert!(places.taken.lock().unwrap().is_empty(), "nobody is remembered");
        let six = (take("2001:db8::1").await, take("2001:db8::2").await, take("2001:db8::3").await);
        assert!(six.0.is_some() && six.1.is_some() && six.2.is_none(), "a prefix is one client");
    }
}
