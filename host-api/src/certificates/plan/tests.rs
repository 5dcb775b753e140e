use super::*;

const DAY: i64 = 86_400;
const LIFETIMES: Lifetimes = Lifetimes { certificate: 90 * DAY, authority: 365 * DAY };
const NOW: i64 = 1_800_000_000;

fn made(at: i64, life: i64) -> Validity {
    Validity::from(at, life)
}

fn leaf(at: i64, issuer: Option<usize>) -> Option<Leaf> {
    Some(Leaf { validity: made(at, LIFETIMES.certificate), issuer, is_ours: true })
}

fn standing(leaf: Option<Leaf>, authorities: &[i64]) -> Standing {
    let authorities = authorities.iter().map(|at| made(*at, LIFETIMES.authority)).collect();
    Standing { leaf, authorities, signs: true }
}

fn changes(standing: &Standing, now: i64) -> Option<(Vec<usize>, bool, Option<Signer>)> {
    match next(standing, now, &LIFETIMES) {
        Next::Wait(until) => {
            assert!(until > now, "a wait for the past");
            None
        }
        Next::Change(change) => Some((change.keep, change.new_authority, change.sign)),
    }
}

#[test]
fn each_state_has_its_one_next_step() {
    let present = Some(Signer::Present);
    let cases = [
        ("nothing stands", standing(None, &[]), 0, Some((vec![], true, Some(Signer::New)))),
        ("all is fresh", standing(leaf(NOW, Some(0)), &[NOW]), DAY, None),
        ("the certificate nears 2/3", standing(leaf(NOW, Some(0)), &[NOW]), 60 * DAY - 1, None),
        ("the certificate is at 2/3", standing(leaf(NOW, Some(0)), &[NOW]), 60 * DAY, Some((vec![0], false, present))),
        ("the certificate is gone", standing(None, &[NOW]), DAY, Some((vec![0], false, present))),
        ("nobody vouches", standing(leaf(NOW, None), &[NOW]), DAY, Some((vec![0], false, present))),
        (
            "the authority is at 2/3",
            standing(leaf(NOW + 240 * DAY, Some(0)), &[NOW]),
            365 * DAY * 2 / 3,
            Some((vec![0], true, present)),
        ),
        ("a new authority settles", standing(leaf(NOW, Some(1)), &[NOW, NOW - 250 * DAY]), SETTLED - 1, None),
        (
            "a new authority has settled",
            standing(leaf(NOW, Some(1)), &[NOW, NOW - 250 * DAY]),
            SETTLED,
            Some((vec![0, 1], false, present)),
        ),
        (
            "a certificate of the old authority may still be shown",
            standing(leaf(NOW + 60 * DAY, Some(0)), &[NOW, NOW - 250 * DAY]),
            90 * DAY,
            None,
        ),
        (
            "none of the old authority can be shown any more",
            standing(leaf(NOW + 60 * DAY, Some(0)), &[NOW, NOW - 250 * DAY]),
            90 * DAY + SETTLED,
            Some((vec![0], false, None)),
        ),
        (
            "the old authority is over",
            standing(leaf(NOW, Some(0)), &[NOW, NOW - 365 * DAY]),
            DAY,
            Some((vec![0], false, None)),
        ),
        (
            "everything is over",
            standing(leaf(NOW, Some(0)), &[NOW]),
            400 * DAY,
            Some((vec![], true, Some(Signer::New))),
        ),
    ];
    for (what, standing, later, expected) in cases {
        assert_eq!(changes(&standing, NOW + later), expected, "{what}");
    }
}

#[test]
fn a_certificate_for_other_names_is_replaced_at_once() {
    let mut other = standing(leaf(NOW, Some(0)), &[NOW]);
    other.leaf.as_mut().unwrap().is_ours = false;
    assert_eq!(changes(&other, NOW + 1), Some((vec![0], false, Some(Signer::Present))));
}

#[test]
fn a_lost_key_of_the_authority_leaves_the_good_certificate_shown_until_a_new_one_has_settled() {
    let lost = Standing { signs: false, ..standing(leaf(NOW, Some(0)), &[NOW]) };
    assert_eq!(changes(&lost, NOW + DAY), Some((vec![0], true, None)));
}

/// Carries changes out as the process would, over ten years and in steps of any size: whoever believes a bundle that is up to
/// [`settling`] old trusts what is shown, and what is shown is never over.
fn live(lifetimes: &Lifetimes, step: i64) {
    let mut standing = Standing::default();
    let mut bundles: Vec<(i64, Vec<Validity>)> = Vec::new();
    let (mut rotated, mut most) = (0, 0);
    let mut now = NOW;
    while now < NOW + 10 * lifetimes.authority {
        while let Next::Change(change) = next(&standing, now, lifetimes) {
            let signer = standing.authorities.first().copied();
            let old = standing.leaf.and_then(|leaf| leaf.issuer).map(|issuer| standing.authorities[issuer]);
            let mut authorities: Vec<Validity> = change.keep.iter().map(|index| standing.authorities[*index]).collect();
            if change.new_authority {
                authorities.insert(0, made(now, lifetimes.authority));
                rotated += 1;
            }
            let issuer = match change.sign {
                None => old,
                Some(Signer::Present) => signer,
                Some(Signer::New) => authorities.first().copied(),
            };
            let mut validity = made(now, lifetimes.certificate);
            validity.not_after = validity.not_after.min(issuer.unwrap().not_after);
            let validity = if change.sign.is_some() { validity } else { standing.leaf.unwrap().validity };
            let issuer = authorities.iter().position(|authority| Some(*authority) == issuer);
            standing = Standing { leaf: Some(Leaf { validity, issuer, is_ours: true }), authorities, signs: true };
            bundles.push((now, standing.authorities.clone()));
        }
        let leaf = standing.leaf.unwrap();
        assert!(!leaf.validity.is_over(now), "an expired certificate is shown");
        let issuer = standing.authorities[leaf.issuer.unwrap()];
        assert!(!issuer.is_over(now), "an expired authority vouches");
        let old_enough = bundles.iter().rev().find(|(at, _)| now - at >= settling(lifetimes));
        let readers = bundles.iter().rev().take_while(|(at, _)| now - at < settling(lifetimes)).chain(old_enough);
        for (at, bundle) in readers {
            assert!(bundle.contains(&issuer), "a bundle of {} s ago does not vouch", now - at);
        }
        most = most.max(standing.authorities.len());
        now += step;
    }
    assert!(rotated >= 14, "{rotated} rotations in ten lives");
    assert!(most <= 2, "{most} authorities at once");
}

#[test]
fn readers_of_a_late_bundle_trust_what_is_shown_at_every_moment_of_ten_years() {
    for step in [600, 3_607, DAY / 3] {
        live(&LIFETIMES, step);
    }
}

#[test]
fn the_shortest_lives_rotate_by_the_same_rules() {
    live(&Lifetimes { certificate: 10, authority: 60 }, 1);
    live(&Lifetimes { certificate: 20, authority: 60 }, 1);
}
