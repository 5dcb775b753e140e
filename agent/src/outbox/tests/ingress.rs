//! Two kinds of object in one outbox.

use k3k_expose_proto::Resource;
use k3k_expose_proto::message::Object;

use super::*;

fn ingress(name: &str) -> Change {
    let key = Key::of(Resource::Ingresses, "default", name).unwrap();
    let object = Object::Ingress(Box::default());
    Change::of(Projected::Wanted { key, uid: uid("i"), object }).unwrap()
}

#[test]
fn there_is_nothing_to_open_a_session_with_until_both_kinds_are_listed() {
    let mut outbox = Outbox::default().with([Resource::Ingresses]);
    outbox.replace(Resource::Services, &uid("cluster"), vec![wanted("a", "u", "1")]);
    assert!(!outbox.is_ready());
    outbox.replace(Resource::Ingresses, &uid("cluster"), vec![ingress("a")]);
    assert!(outbox.is_ready());
    let hello = outbox.hello().unwrap();
    assert_eq!((hello.count, hello.ingresses), (2, true), "one list does not take the other's objects away");
    // The first to see another cluster takes everything of the old one away.
    outbox.replace(Resource::Ingresses, &uid("other"), vec![ingress("b")]);
    assert!(!outbox.is_ready());
    assert_eq!(outbox.hello().unwrap().count, 1);
}

#[test]
fn services_are_said_before_the_ingresses_that_wait_for_them() {
    let mut outbox = Outbox::default().with([Resource::Ingresses]);
    outbox.replace(Resource::Ingresses, &uid("cluster"), vec![ingress("a")]);
    outbox.replace(Resource::Services, &uid("cluster"), vec![wanted("z", "u", "1")]);
    outbox.hello().unwrap();
    let generation = outbox.welcome(&welcome("epoch", Resume::Snapshot, 8));
    let said = std::iter::from_fn(|| outbox.next(generation));
    let keys: Vec<_> =
        said.filter_map(|line| if let FromAgent::Put(put) = line { Some(put.key) } else { None }).collect();
    assert_eq!(keys.iter().map(Key::as_str).collect::<Vec<_>>(), ["services/default/z", "ingresses/default/a"]);
}
