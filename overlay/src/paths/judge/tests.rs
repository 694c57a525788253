use super::*;

/// A judge, and a path that answers what fits after a millisecond.
struct Path {
    judge: Judge,
    now: Instant,
    fits: u16,
    sent: Vec<u16>,
}

impl Path {
    fn new(fits: u16, known: Option<u16>) -> Self {
        let now = Instant::now();
        Self {
            judge: Judge::new(58, 1500, known, now),
            now,
            fits,
            sent: Vec::new(),
        }
    }

    fn run(&mut self, time: Duration) -> PathState {
        let end = self.now + time;
        while self.judge.wake() <= end {
            self.now = self.judge.wake().max(self.now);
            for send in self.judge.tick(self.now) {
                self.sent.push(send.size);
                if send.size <= self.fits {
                    let answered = self.now + Duration::from_millis(1);
                    assert!(self.judge.answered(send.sequence, answered));
                }
            }
        }
        self.now = end;
        self.judge.state()
    }
}

#[test]
fn a_path_as_wide_as_the_link_is_known_by_one_great_probe() {
    let mut path = Path::new(1500, None);
    let state = path.run(Duration::from_millis(1100));
    assert_eq!((state.reachable, state.mtu), (Some(true), Some(1500)));
    assert_eq!(path.sent, [58, 1500, 58]);
}

#[test]
fn any_width_is_found_within_seconds_and_to_the_byte() {
    for fits in [58, 59, 576, 1280, 1399, 1400, 1492, 1499, 1500] {
        let state = Path::new(fits, None).run(Duration::from_secs(15));
        assert_eq!(state.mtu, Some(fits));
        assert_eq!(state.lost, 0, "great probes are no loss");
    }
}

#[test]
fn what_becomes_narrow_or_wide_is_seen() {
    let mut path = Path::new(1500, None);
    assert_eq!(path.run(Duration::from_secs(30)).mtu, Some(1500));
    path.fits = 1400;
    assert_eq!(path.run(Duration::from_secs(25)).mtu, Some(1400));
    path.fits = 1450;
    assert_eq!(path.run(Duration::from_secs(40)).mtu, Some(1450));
    path.fits = 1500;
    assert_eq!(path.run(Duration::from_secs(40)).mtu, Some(1500));
}

#[test]
fn a_silent_peer_is_unreachable_after_three_and_keeps_its_width() {
    let mut path = Path::new(1400, None);
    assert_eq!(path.run(Duration::from_secs(20)).mtu, Some(1400));
    path.fits = 0;
    let state = path.run(Duration::from_secs(5));
    assert_eq!((state.reachable, state.mtu), (Some(false), Some(1400)));
    assert!((3..=5).contains(&state.lost), "{state:?}");
    path.fits = 1400;
    assert_eq!(path.run(Duration::from_secs(2)).reachable, Some(true));
}

#[test]
fn a_path_that_was_blocked_must_hold_before_it_is_relied_on() {
    let mut path = Path::new(1500, None);
    assert!(!path.run(Duration::from_secs(10)).blocked);
    let mut block = |held: u64| {
        path.fits = 0;
        assert!(path.run(Duration::from_secs(5)).blocked);
        path.fits = 1500;
        let state = path.run(Duration::from_secs(held - 2));
        assert_eq!(
            (state.reachable, state.blocked),
            (Some(true), true),
            "{held}"
        );
        assert!(!path.run(Duration::from_secs(3)).blocked, "{held}");
    };
    for held in [5, 10, 20] {
        block(held); // longer each time it comes and goes
    }
    path.run(FLAPS);
    path.fits = 0;
    assert!(path.run(Duration::from_secs(5)).blocked);
    path.fits = 1500;
    assert!(
        !path.run(Duration::from_secs(7)).blocked,
        "all that is long ago"
    );
}

#[test]
fn one_that_was_blocked_before_is_until_it_has_held() {
    let mut path = Path::new(1500, None);
    path.judge.set_blocked(true);
    assert!(path.run(Duration::from_secs(3)).blocked);
    assert!(!path.run(Duration::from_secs(3)).blocked);
}

#[test]
fn nothing_is_said_before_anything_is_known() {
    let mut path = Path::new(0, None);
    assert_eq!(path.run(Duration::from_millis(1500)).reachable, None);
    assert_eq!(path.run(Duration::from_secs(3)).reachable, Some(false));
    assert_eq!(path.judge.state().mtu, None);
}

#[test]
fn what_was_known_before_holds_until_it_is_known_better() {
    let mut path = Path::new(1500, Some(1400));
    assert_eq!(path.judge.state().mtu, Some(1400));
    assert_eq!(path.run(Duration::from_secs(3)).mtu, Some(1500));
}

#[test]
fn a_link_of_another_mtu_is_heeded() {
    let mut path = Path::new(9000, None);
    assert_eq!(path.run(Duration::from_secs(3)).mtu, Some(1500));
    path.judge.set_most(1300, path.now);
    assert_eq!(path.judge.state().mtu, Some(1300));
    path.judge.set_most(9000, path.now);
    assert_eq!(path.run(Duration::from_secs(3)).mtu, Some(9000));
}
