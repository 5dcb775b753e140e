//! Terms in paused time: no second of it is waited for.

use std::cell::Cell;

use tokio::time::advance;

use super::*;

const LEASE: Duration = Duration::from_secs(10);

/// A leadership, and who gives and renews it.
fn leadership() -> (Arc<watch::Sender<Option<Term>>>, Leadership) {
    let (sender, present) = watch::channel(None);
    (Arc::new(sender), Leadership { present })
}

fn lead(present: &watch::Sender<Option<Term>>, number: u64) -> Term {
    let term = Term::new(number, Some(Instant::now() + LEASE));
    present.send_replace(Some(term.clone()));
    term
}

#[tokio::test(start_paused = true)]
async fn a_term_is_over_by_the_clock_though_nobody_has_noticed() {
    let (present, leadership) = leadership();
    let term = lead(&present, 1);
    assert!(leadership.is_in(&term));
    // As for a process that was stopped: nothing ran meanwhile.
    advance(LEASE).await;
    assert!(!leadership.is_in(&term) && leadership.term().is_none());
    assert!(!term.ended().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_renewed_term_goes_on_and_one_that_is_not_renewed_ends_at_its_moment() {
    let (present, leadership) = leadership();
    let term = lead(&present, 1);
    let renewing = async {
        sleep(LEASE / 2).await;
        present.send_replace(Some(Term { until: Some(Instant::now() + LEASE), ..term.clone() }));
        term.ended().cancelled().await;
    };
    let began = Instant::now();
    tokio::select! {
        () = expire(&present) => {}
        () = renewing => {}
    }
    assert_eq!(began.elapsed().as_secs(), (LEASE * 3 / 2).as_secs());
    assert!(leadership.term().is_none());
}

#[tokio::test(start_paused = true)]
async fn work_is_dropped_with_its_term_and_begins_anew_in_the_next() {
    let (present, leadership) = leadership();
    let (begun, ended) = (Cell::new(0), Cell::new(0));
    let work = || async {
        begun.set(begun.get() + 1);
        sleep(LEASE * 2).await;
        ended.set(ended.get() + 1);
    };
    let scenario = async {
        lead(&present, 1);
        sleep(LEASE * 3 / 2).await;
        assert_eq!((begun.get(), ended.get()), (1, 0));
        lead(&present, 2);
        sleep(LEASE / 2).await;
        assert_eq!(begun.get(), 2);
    };
    tokio::select! {
        () = scenario => {}
        () = expire(&present) => {}
        () = leadership.in_each_term(work) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_alone_leads_without_end() {
    let leadership = Leadership::alone();
    let term = leadership.gained().await;
    advance(Duration::from_secs(1_000_000)).await;
    assert!(leadership.is_in(&term));
}
