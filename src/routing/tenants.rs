//! Tenants: what each has over all shards, and its limits. The default tenant has none, and is never looked up.
//!
//! Counts are exact. Rates are leased: a shard takes a part of a second's worth at a time and spends it alone, so that a busy tenant's
//! messages don't meet on one cache line.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use hashbrown::HashMap;

use super::Shard;
use crate::access::{Access, AppLimits};
use crate::clock::Millis;
use crate::ids::SessionIdx;
use crate::limits::RATE_LEASES;
use crate::topic::Scope;
use crate::wire::ReasonCode;

/// What one tenant has and does, over all shards.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    /// Sessions with a connection.
    pub(super) connections: AtomicU64,
    /// Subscriptions of all its sessions.
    pub(super) subscriptions: AtomicU64,
    /// Bytes in the queues of its durable sessions.
    pub(super) queued_bytes: AtomicU64,
    /// PUBLISH packets received.
    pub(super) publishes_in: AtomicU64,
    /// Connects, messages and subscriptions that were refused.
    pub(super) refused: AtomicU64,
    connects: Rate,
    publishes: Rate,
    bytes: Rate,
}

/// A rate, as the time at which all that was taken will have been earned (GCRA), in microseconds. A second's worth may be taken at once.
#[derive(Debug, Default)]
struct Rate(AtomicU64);

impl Rate {
    /// Takes `n` where `per_second` are earned. False: that is too many for now, and nothing is taken.
    fn take(&self, n: u64, per_second: u64, now: Millis) -> bool {
        let now = now.0 * 1000;
        let cost = n.saturating_mul(1_000_000) / per_second.max(1);
        let taken = self.0.fetch_update(Relaxed, Relaxed, |earned| {
            let earned = earned.max(now);
            // What costs more than a second is taken when nothing else is owed.
            (earned == now || earned + cost <= now + 1_000_000).then_some(earned + cost)
        });
        taken.is_ok()
    }
}

/// All tenants that have been here. There are as many as whoever signs tokens has named.
#[derive(Debug, Default)]
pub(super) struct Tenants(Mutex<HashMap<Box<str>, Arc<Tenant>>>);

impl Tenants {
    fn get(&self, name: &str) -> Arc<Tenant> {
        let mut all = self.0.lock().expect("no panic while it is held");
        if let Some(tenant) = all.get(name) {
            return Arc::clone(tenant);
        }
        let tenant = Arc::<Tenant>::default();
        all.insert(name.into(), Arc::clone(&tenant));
        tenant
    }

    /// What all of them have together: connections, subscriptions, bytes in queues.
    pub(super) fn sums(&self) -> (u64, u64, u64) {
        let all = self.all();
        let sum = |of: fn(&Tenant) -> &AtomicU64| {
            all.iter().map(|(_, tenant)| of(tenant).load(Relaxed)).sum()
        };
        (
            sum(|tenant| &tenant.connections),
            sum(|tenant| &tenant.subscriptions),
            sum(|tenant| &tenant.queued_bytes),
        )
    }

    /// Each with its name.
    pub(super) fn all(&self) -> Vec<(Box<str>, Arc<Tenant>)> {
        let all = self.0.lock().expect("no panic while it is held");
        all.iter()
            .map(|(name, tenant)| (name.clone(), Arc::clone(tenant)))
            .collect()
    }
}

/// A tenant as one shard sees it.
#[derive(Debug)]
struct Local {
    tenant: Arc<Tenant>,
    limits: AppLimits,
    /// What is left of a lease.
    publishes: u64,
    bytes: u64,
}

/// The tenants that a shard has met.
#[derive(Debug, Default)]
pub(super) struct Locals(HashMap<Box<str>, Local>);

impl Locals {
    /// The limits may be others now.
    pub(super) fn reload(&mut self, access: &Access) {
        for (name, local) in &mut self.0 {
            local.limits = limits_of(access, name);
        }
    }

    fn meet(&mut self, name: &str, shared: &Tenants, access: &Access) -> &mut Local {
        if !self.0.contains_key(name) {
            let local = Local {
                tenant: shared.get(name),
                limits: limits_of(access, name),
                publishes: 0,
                bytes: 0,
            };
            self.0.insert(name.into(), local);
        }
        self.0.get_mut(name).expect("it was put there")
    }
}

fn limits_of(access: &Access, name: &str) -> AppLimits {
    access
        .tenant(name)
        .map(|app| app.limits)
        .unwrap_or_default()
}

/// Spends of a lease, and takes another when it is used up.
fn spend(left: &mut u64, n: u64, rate: &Rate, per_second: u64, now: Millis) -> bool {
    if *left < n {
        let lease = n.max(per_second / RATE_LEASES);
        if !rate.take(lease, per_second, now) {
            return false;
        }
        *left += lease;
    }
    *left -= n;
    true
}

/// A tenant's limit that a message is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Its payload is larger than the tenant's may be.
    Payload,
    /// The tenant publishes too much.
    Rate,
}

impl Shard {
    /// The session's tenant; none for the default one.
    fn tenant(&mut self, idx: SessionIdx) -> Option<&mut Local> {
        if !self.shared.tenants.load(Relaxed) {
            return None;
        }
        let name = Scope::of(self.ids.text(self.sessions[idx].client_id)).tenant();
        let (shared, access) = (&self.shared.all_tenants, &self.passes.access);
        (!name.is_empty()).then(|| self.tenants.meet(name, shared, access))
    }

    /// Whether a tenant may have another connection, which is counted then; `replaces`: one that there is ends for it.
    pub(super) fn tenant_enters(
        &mut self,
        scope: Scope<'_>,
        replaces: bool,
        now: Millis,
    ) -> Result<(), ReasonCode> {
        if scope.is_default() {
            return Ok(());
        }
        let (shared, access) = (&self.shared.all_tenants, &self.passes.access);
        let Local { tenant, limits, .. } = self.tenants.meet(scope.tenant(), shared, access);
        let refused = |reason| {
            tenant.refused.fetch_add(1, Relaxed);
            Err(reason)
        };
        if let Some(rate) = limits.connect_rate
            && !tenant.connects.take(1, rate, now)
        {
            return refused(ReasonCode::CONNECTION_RATE_EXCEEDED);
        }
        let most = limits.max_connections.filter(|_| !replaces);
        let entered = tenant.connections.fetch_update(Relaxed, Relaxed, |count| {
            (count < most.unwrap_or(u64::MAX)).then_some(count + 1)
        });
        if entered.is_err() {
            return refused(ReasonCode::QUOTA_EXCEEDED);
        }
        Ok(())
    }

    /// One connection of the tenant fewer.
    pub(super) fn tenant_left(&mut self, scope: Scope<'_>) {
        if !scope.is_default() {
            let (shared, access) = (&self.shared.all_tenants, &self.passes.access);
            let local = self.tenants.meet(scope.tenant(), shared, access);
            local.tenant.connections.fetch_sub(1, Relaxed);
        }
    }

    /// The session's connection has ended.
    pub(super) fn tenant_detached(&mut self, idx: SessionIdx) {
        if let Some(local) = self.tenant(idx) {
            local.tenant.connections.fetch_sub(1, Relaxed);
        }
    }

    /// Whether a payload is within the tenant's limit.
    pub(super) fn may_be_as_large(&self, scope: Scope<'_>, payload: usize) -> bool {
        let most = limits_of(&self.passes.access, scope.tenant()).max_payload;
        scope.is_default() || most.is_none_or(|most| payload as u64 <= most)
    }

    /// Whether the session's tenant may publish so much now.
    pub(super) fn tenant_publishes(
        &mut self,
        idx: SessionIdx,
        payload: usize,
        now: Millis,
    ) -> Result<(), Over> {
        let Some(local) = self.tenant(idx) else {
            return Ok(());
        };
        let (tenant, limits) = (&local.tenant, &local.limits);
        tenant.publishes_in.fetch_add(1, Relaxed);
        let payload = payload as u64;
        if limits.max_payload.is_some_and(|most| payload > most) {
            tenant.refused.fetch_add(1, Relaxed);
            return Err(Over::Payload);
        }
        let in_rate = limits
            .publish_rate
            .is_none_or(|rate| spend(&mut local.publishes, 1, &tenant.publishes, rate, now))
            && limits
                .publish_bytes
                .is_none_or(|rate| spend(&mut local.bytes, payload, &tenant.bytes, rate, now));
        if !in_rate {
            tenant.refused.fetch_add(1, Relaxed);
            return Err(Over::Rate);
        }
        Ok(())
    }

    /// Whether the session's tenant may have another subscription.
    pub(super) fn tenant_subscribes(&mut self, idx: SessionIdx) -> bool {
        let Some(Local { tenant, limits, .. }) = self.tenant(idx) else {
            return true;
        };
        let has = tenant.subscriptions.load(Relaxed);
        limits.max_subscriptions.is_none_or(|most| has < most)
    }

    /// Something of the session's tenant was refused.
    pub(super) fn tenant_refused(&mut self, idx: SessionIdx) {
        if let Some(local) = self.tenant(idx) {
            local.tenant.refused.fetch_add(1, Relaxed);
        }
    }

    /// The session has so many subscriptions more.
    pub(super) fn subscribed(&mut self, idx: SessionIdx, count: u64) {
        self.counters().subscriptions.add(count);
        if let Some(local) = self.tenant(idx) {
            local.tenant.subscriptions.fetch_add(count, Relaxed);
        }
    }

    /// The session has so many subscriptions fewer.
    pub(super) fn unsubscribed(&mut self, idx: SessionIdx, count: u64) {
        self.counters().subscriptions.sub(count);
        if let Some(local) = self.tenant(idx) {
            local.tenant.subscriptions.fetch_sub(count, Relaxed);
        }
    }

    /// Whether the session's tenant may have so much more in its queues.
    pub(super) fn tenant_has_room(&mut self, idx: SessionIdx, bytes: u64) -> bool {
        self.tenant(idx).is_none_or(|Local { tenant, limits, .. }| {
            let has = tenant.queued_bytes.load(Relaxed);
            limits
                .max_offline_bytes
                .is_none_or(|most| has + bytes <= most)
        })
    }

    /// A session was found in the log with this queue, of which only the sum over all is known.
    pub(super) fn tenant_found(&mut self, idx: SessionIdx) {
        let bytes = self.stored_bytes(idx);
        if let Some(local) = self.tenant(idx) {
            local.tenant.queued_bytes.fetch_add(bytes, Relaxed);
        }
    }

    /// A session that was found is none, and its queue goes.
    pub(super) fn tenant_lost(&mut self, idx: SessionIdx) {
        let bytes = self.stored_bytes(idx);
        if let Some(local) = self.tenant(idx) {
            local.tenant.queued_bytes.fetch_sub(bytes, Relaxed);
        }
    }

    /// The session's queue has so many bytes more.
    pub(super) fn queue_grew(&mut self, idx: SessionIdx, bytes: u64) {
        self.shared.queued_bytes.fetch_add(bytes, Relaxed);
        if let Some(local) = self.tenant(idx) {
            local.tenant.queued_bytes.fetch_add(bytes, Relaxed);
        }
    }

    /// The session's queue has so many bytes fewer.
    pub(super) fn queue_shrank(&mut self, idx: SessionIdx, bytes: u64) {
        self.shared.queued_bytes.fetch_sub(bytes, Relaxed);
        if let Some(local) = self.tenant(idx) {
            local.tenant.queued_bytes.fetch_sub(bytes, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_gives_a_seconds_worth_at_once_and_then_as_it_is_earned() {
        let rate = Rate::default();
        let start = Millis(5_000);
        let taken = (0..100).filter(|_| rate.take(1, 10, start)).count();
        assert_eq!(taken, 10);
        assert!(!rate.take(1, 10, Millis(5_099)));
        assert!(rate.take(1, 10, Millis(5_100)));
        assert!(!rate.take(1, 10, Millis(5_100)));
    }

    #[test]
    fn what_is_more_than_a_seconds_worth_passes_alone() {
        let rate = Rate::default();
        assert!(rate.take(25, 10, Millis(0)));
        assert!(!rate.take(1, 10, Millis(1_499)));
        assert!(rate.take(1, 10, Millis(2_500)));
    }

    #[test]
    fn leases_add_up_to_the_rate() {
        let rate = Rate::default();
        let mut left = [0; 3];
        let spent = (0..10_000)
            .filter(|at| spend(&mut left[at % 3], 1, &rate, 1000, Millis(0)))
            .count();
        let leased = 1000 / RATE_LEASES as usize;
        assert!((1000 - leased..=1000).contains(&spent), "{spent}");
    }
}
