//! Couriers: one for each link, whatever becomes of it.

use super::*;

const OFFICE: Duration = Duration::from_secs(30);

impl Cache {
    fn appoint(&mut self, credential: u32, who: &Owner) -> bool {
        let (now, until) = (self.now, self.now.plus(OFFICE));
        self.write(|tx| tx.appoint_courier(link(credential).as_str(), who, now, until))
    }

    fn take(&mut self, from: &Owner, to: &Owner) -> bool {
        let until = self.now.plus(OFFICE);
        self.write(|tx| tx.take_office(link(1).as_str(), from, to, until))
    }

    fn stay(&mut self, who: &Owner) -> bool {
        let (now, until) = (self.now, self.now.plus(OFFICE));
        self.write(|tx| tx.stay_in_office(link(1).as_str(), who, now, until))
    }

    fn leave(&mut self, who: &Owner) {
        self.write(|tx| tx.leave_office(link(1).as_str(), who));
    }
}

#[test]
fn there_is_one_courier_for_a_link() {
    let (first, second) = (owner(1), owner(2));
    let mut cache = Cache::new();
    assert!(cache.appoint(1, &first));
    assert!(cache.appoint(1, &first), "the same one again");
    assert!(!cache.appoint(1, &second));
    assert!(cache.appoint(2, &second), "another credential has its own");
    let (now, until, other) = (cache.now, cache.now.plus(OFFICE), Link::new(workspace(1), "another proxy"));
    assert!(
        cache.write(|tx| tx.appoint_courier(other.as_str(), &second, now, until)),
        "another way has its own"
    );
    cache.leave(&second);
    assert!(!cache.appoint(1, &second), "nobody ends another's office");
    cache.leave(&first);
    assert!(cache.appoint(1, &second));
}

#[test]
fn an_office_ends_with_its_time_or_its_holder() {
    let mut cache = Cache::new();
    assert!(cache.appoint(1, &owner(1)));
    cache.pass(OFFICE.saturating_sub(seconds(1)));
    assert!(!cache.appoint(1, &owner(2)));
    cache.pass(seconds(1));
    assert!(cache.appoint(1, &owner(2)));

    let mut cache = Cache::new();
    let this = owner(1).to_string();
    let (namespace, _) = this.split_once('/').expect("namespace and pid");
    assert!(cache.appoint(1, &Owner::stored(format!("{namespace}/{}/1", i32::MAX))));
    assert!(cache.appoint(1, &owner(2)), "a dead courier keeps nobody out");
}

#[test]
fn an_office_passes_from_the_caller_to_the_courier_that_it_started() {
    let (caller, courier, other) = (owner(1), owner(2), owner(3));
    let mut cache = Cache::new();
    assert!(!cache.take(&caller, &courier), "there is none to take");
    assert!(cache.appoint(1, &caller));
    assert!(cache.take(&caller, &courier));
    assert!(!cache.take(&caller, &other), "it was passed on already");
    assert!(!cache.stay(&caller));
    assert!(cache.stay(&courier));
    cache.leave(&caller);
    assert!(cache.stay(&courier));
}

#[test]
fn a_courier_stays_as_long_as_it_says_so() {
    let courier = owner(1);
    let mut cache = Cache::new();
    assert!(cache.appoint(1, &courier));
    for _ in 0..10 {
        cache.pass(OFFICE.mul_f64(0.6));
        assert!(cache.stay(&courier));
        cache.pass(OFFICE.mul_f64(0.6));
        assert!(!cache.appoint(1, &owner(2)));
        assert!(cache.stay(&courier));
    }
    cache.pass(OFFICE.mul_f64(0.3));
    assert!(!cache.appoint(1, &owner(2)));
    // One that slept too long and was replaced hears of it.
    cache.pass(OFFICE);
    assert!(cache.appoint(1, &owner(2)));
    assert!(!cache.stay(&courier));
    assert!(cache.stay(&owner(2)));
}

#[test]
fn a_courier_is_wanted_while_something_waits_that_it_may_send() {
    let mut cache = Cache::new();
    let waits =
        |cache: &mut Cache| cache.store.read(|tx| tx.anything_waits(&workspace(1))).expect("an answer");
    assert!(!waits(&mut cache));
    cache.say("a", Status::Working);
    assert!(waits(&mut cache));
    let job = cache.job(&owner(1));
    assert!(waits(&mut cache), "until it is settled");
    cache.settle(&job, &owner(1), &Settlement::Rejected { reason: "channel_not_found".to_owned() });
    assert!(!waits(&mut cache), "what was refused for good does not wait");
    // A message held back by the interval, and one that belongs elsewhere.
    cache.threaded("b");
    assert!(!waits(&mut cache));
    cache.say("b", Status::Planning);
    assert!(waits(&mut cache));
    cache.write(|tx| Ok(tx.connection.execute("DELETE FROM entries", [])?));
    cache.credential = workspace(2);
    cache.say("c", Status::Working);
    assert!(!waits(&mut cache));
}
