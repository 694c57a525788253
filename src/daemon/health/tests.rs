use super::*;

fn result(code: i32) -> CheckResult {
    CheckResult {
        start: Timestamp::UNIX_EPOCH,
        end: Timestamp::UNIX_EPOCH,
        code,
        output: String::new(),
    }
}

#[test]
fn so_many_failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
    let mut health = Health::new();
    assert_eq!(health.note(result(1), 2, false), None);
    assert_eq!(
        health.note(result(1), 2, false),
        Some(HealthStatus::Unhealthy)
    );
    assert_eq!(health.streak, 2);
    assert_eq!(
        health.note(result(0), 2, false),
        Some(HealthStatus::Healthy)
    );
    assert_eq!(health.streak, 0);
    assert_eq!(health.note(result(FAILED), 2, false), None);
    for _ in 0..LOG {
        health.note(result(0), 2, false);
    }
    assert_eq!(health.log.len(), LOG);
    assert!(health.log.iter().all(|result| result.code == 0));
}

#[test]
fn in_its_start_period_a_container_may_fail() {
    let mut health = Health::new();
    for _ in 0..9 {
        assert_eq!(health.note(result(1), 1, true), None);
    }
    assert_eq!(health.streak, 0);
    assert_eq!(health.note(result(0), 1, true), Some(HealthStatus::Healthy));
    // Once it was well, the period is over for it.
    assert_eq!(
        health.note(result(1), 1, true),
        Some(HealthStatus::Unhealthy)
    );
}

#[test]
fn a_check_has_dockers_defaults_and_its_own_pace_at_the_start() {
    let check = |test: &[&str]| HealthCheck {
        test: test.iter().map(|word| (*word).to_owned()).collect(),
        start_period: 60_000_000_000,
        ..HealthCheck::default()
    };
    let plan = Plan::of(&check(&["CMD-SHELL", "test -e /ready"])).expect("a check");
    let Probe::Command(command) = &plan.probe else {
        panic!("{plan:?}");
    };
    assert_eq!(*command, ["/bin/sh", "-c", "test -e /ready"]);
    assert_eq!(plan.retries, 3);
    let second = Duration::from_secs(1);
    assert_eq!(plan.pause(HealthStatus::Starting, second), second * 5);
    assert_eq!(plan.pause(HealthStatus::Healthy, second), second * 30);
    assert_eq!(plan.pause(HealthStatus::Starting, second * 61), second * 30);
    for none in [&[][..], &["NONE"], &["SMOKE", "x"]] {
        assert!(Plan::of(&check(none)).is_none(), "{none:?}");
    }
}

#[test]
fn the_image_fills_in_what_the_user_left_open() {
    let image = serde_json::json!({"Test": ["CMD", "true"], "Interval": 5, "Retries": 2});
    let asked = HealthCheck {
        interval: 7,
        ..HealthCheck::default()
    };
    let found = merged(Some(asked.clone()), Some(&image)).expect("a check");
    assert_eq!((found.interval, found.retries), (7, 2));
    assert_eq!(found.test, ["CMD", "true"]);
    assert_eq!(merged(None, Some(&image)).expect("the image's").interval, 5);
    let none = HealthCheck {
        test: vec!["NONE".to_owned()],
        ..HealthCheck::default()
    };
    let found = merged(Some(none), Some(&image)).expect("none");
    assert!(Plan::of(&found).is_none());
    assert_eq!(merged(Some(asked.clone()), None), Some(asked));
    let nonsense = serde_json::json!({"Test": 7});
    assert_eq!(merged(None, Some(&nonsense)), None);
}

#[test]
fn long_output_is_cut() {
    assert_eq!(text(&[b'x'; OUTPUT]).len(), OUTPUT);
    assert_eq!(text(&[b'x'; OUTPUT + 1]).len(), OUTPUT + 3);
}
