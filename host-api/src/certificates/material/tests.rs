use super::*;
use crate::certificates::plan::{Next, next};

const LIFETIMES: Lifetimes = Lifetimes { certificate: 7_776_000, authority: 31_536_000 };
const NOW: i64 = 1_800_000_000;

fn names() -> Vec<String> {
    ["host-api.here.svc", "127.0.0.1"].map(str::to_owned).into()
}

fn empty() -> Material {
    Material::read(&BTreeMap::new())
}

/// What the process would do at that time, and how often until there is nothing to do.
fn settle(mut material: Material, now: i64) -> (Material, usize) {
    let mut changes = 0;
    while let Next::Change(change) = next(&material.standing(&names()), now, &LIFETIMES) {
        material = material.change(&change, now, &names(), &LIFETIMES).unwrap();
        changes += 1;
        assert!(changes < 5, "it never ends");
    }
    (material, changes)
}

#[test]
fn the_first_secret_is_complete_and_reads_back_as_it_was_written() {
    let (made, changes) = settle(empty(), NOW);
    assert_eq!(changes, 1);
    let data = made.data();
    let read = Material::read(&data);
    assert_eq!(read.data(), data);
    let standing = read.standing(&names());
    assert!(standing.signs);
    assert_eq!(standing.authorities, [Validity::from(NOW, LIFETIMES.authority)]);
    let leaf = standing.leaf.unwrap();
    assert_eq!((leaf.issuer, leaf.is_ours), (Some(0), true));
    assert_eq!(leaf.validity, Validity::from(NOW, LIFETIMES.certificate));
    assert_eq!(settle(read, NOW + 1).1, 0, "nothing to do");
}

#[test]
fn an_authority_is_followed_by_a_new_one_that_signs_once_it_has_settled() {
    let (first, _) = settle(empty(), NOW);
    let due = NOW + LIFETIMES.authority * 2 / 3;
    let (staged, _) = settle(first.clone(), due);
    assert_eq!(staged.authorities.len(), 2);
    assert_eq!(staged.authorities[1], first.authorities[0]);
    assert_eq!(staged.standing(&names()).leaf.unwrap().issuer, Some(1), "still by the old one");
    assert_ne!(staged.certificate, first.certificate, "yet fresh, since its key is gone now");
    let (switched, _) = settle(staged.clone(), due + 3_600);
    assert_eq!(switched.standing(&names()).leaf.unwrap().issuer, Some(0));
    assert_eq!(switched.bundle(), staged.bundle());
    assert!(switched.standing(&names()).signs);
}

#[test]
fn other_names_and_damaged_parts_are_noticed() {
    let (made, _) = settle(empty(), NOW);
    assert!(!made.standing(&["other".to_owned()]).leaf.unwrap().is_ours);
    let other = settle(empty(), NOW).0.data();
    for (part, kind) in [("tls.key", Some(Unusable::Key)), ("tls.crt", Some(Unusable::Key)), ("ca.key", None)] {
        let mut data = made.data();
        data.insert(part.to_owned(), other[part].clone());
        let mixed = Material::read(&data);
        assert_eq!(mixed.showable().err(), kind, "{part}");
        assert_eq!(mixed.standing(&names()).signs, part != "ca.key", "{part}");
        let (mended, _) = settle(mixed, NOW + 1);
        assert!(mended.showable().is_ok() && mended.standing(&names()).signs, "{part}");
    }
    let garbage = [("tls.crt", "?"), ("ca.crt", "-----END CERTIFICATE-----?"), ("ca.key", "\u{0}")];
    let garbage = garbage.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec()))).into();
    assert_eq!(settle(Material::read(&garbage), NOW).1, 1, "garbage is as good as nothing");
}
