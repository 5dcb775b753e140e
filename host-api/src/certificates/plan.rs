//! When host-api's authority and certificate are made anew, and what stays trusted meanwhile. Pure: times are passed in, in seconds
//! since 1970.
//!
//! The trap: whoever connects reads the bundle from a mounted file that kubelet brings up to date within a minute or two. So
//! a new authority is published first and signs only after it has settled; and an old one stays in the bundle until no
//! certificate of its can be in use.

/// Where a life is at least an hour, it begins this much before its making: clocks of nodes differ.
const EARLIER: i64 = 300;
/// Longest time until a new authority is believed to have reached everybody.
const SETTLED: i64 = 3_600;

/// How long things live, in seconds. An authority lives at least three times as long as a certificate, so that what it signs in
/// its last third ends no later than itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of the certificate that is shown.
    pub certificate: i64,
    /// Of the authority that signs it.
    pub authority: i64,
}

/// From when to when something is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last second.
    pub not_after: i64,
}

/// The certificate that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// When it is valid.
    pub validity: Validity,
    /// Which of the authorities has signed it, if any.
    pub issuer: Option<usize>,
    /// Whether it is for the names under which we are called.
    pub is_ours: bool,
}

/// What stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The certificate, if it can be shown at all.
    pub leaf: Option<Leaf>,
    /// The bundle, the newest authority first.
    pub authorities: Vec<Validity>,
    /// Whether the key of the newest authority is at hand.
    pub signs: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing before this second.
    Wait(i64),
    /// Make something anew.
    Change(Change),
}

/// What is to be made anew, and what stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Authorities that stay in the bundle.
    pub keep: Vec<usize>,
    /// Whether there is to be a new authority. The key of the present one goes with that.
    pub new_authority: bool,
    /// Who signs a new certificate; without one the present certificate stays.
    pub sign: Option<Signer>,
}

/// Who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The newest authority that stands.
    Present,
    /// The one that is made in the same change.
    New,
}

impl Validity {
    /// Of something that is made now, for that long.
    #[must_use]
    pub fn from(now: i64, life: i64) -> Self {
        let earlier = if life >= SETTLED { EARLIER } else { 0 };
        Self { not_before: now - earlier, not_after: now + life }
    }

    /// Whether it has ended.
    #[must_use]
    pub const fn is_over(self, now: i64) -> bool {
        now >= self.not_after
    }

    /// When it was made.
    fn made(self) -> i64 {
        let total = self.not_after - self.not_before;
        if total >= SETTLED + EARLIER { self.not_before + EARLIER } else { self.not_before }
    }

    /// Two thirds of its life.
    fn due(self) -> i64 {
        self.made() + (self.not_after - self.made()) * 2 / 3
    }
}

/// Tells what is to be done now.
#[must_use]
pub fn next(standing: &Standing, now: i64, lifetimes: &Lifetimes) -> Next {
    let living = standing.authorities.iter().enumerate().filter(|(_, authority)| !authority.is_over(now));
    let keep: Vec<usize> = living.map(|(index, _)| index).collect();
    let good = standing.leaf.filter(|leaf| {
        let vouched = leaf.issuer.is_some_and(|issuer| keep.contains(&issuer));
        leaf.is_ours && vouched && !leaf.validity.is_over(now)
    });
    let change = |new_authority, sign| Next::Change(Change { keep: keep.clone(), new_authority, sign });

    let newest = standing.authorities.first().filter(|authority| standing.signs && !authority.is_over(now));
    let Some(newest) = newest else {
        return change(true, good.is_none().then_some(Signer::New));
    };
    if now >= newest.due() {
        // With the last use of its key: until its successor has settled nobody else can sign.
        return change(true, Some(Signer::Present));
    }
    let Some(leaf) = good else {
        return change(false, Some(Signer::Present));
    };
    let settled = newest.made() + settling(lifetimes);
    let is_of_newest = leaf.issuer == Some(0);
    let leaf_due = if is_of_newest { leaf.validity.due() } else { settled };
    if now >= leaf_due {
        return change(false, Some(Signer::Present));
    }
    if keep.len() < standing.authorities.len() {
        return change(false, None);
    }
    // Whatever an older authority has signed was signed before this one had settled.
    let unused = (is_of_newest && keep.len() > 1).then_some(settled + lifetimes.certificate);
    if unused.is_some_and(|unused| now >= unused) {
        return Next::Change(Change { keep: vec![0], new_authority: false, sign: None });
    }
    let ends = standing.authorities.iter().map(|authority| authority.not_after);
    let until = [newest.due(), leaf_due].into_iter().chain(unused).chain(ends).fold(i64::MAX, i64::min);
    Next::Wait(until)
}

/// How long a new authority is published before it signs.
const fn settling(lifetimes: &Lifetimes) -> i64 {
    let sixth = lifetimes.certificate / 6;
    if sixth < SETTLED { sixth } else { SETTLED }
}

#[cfg(test)]
mod tests;
