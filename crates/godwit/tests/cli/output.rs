//! What is printed, and what must not be.

use crate::shop::Shop;

#[test]
fn plain_output_has_no_control_codes() {
    let shop = Shop::new();
    let all = [
        shop.godwit(&["check", "shop.yaml"]).with(0),
        shop.godwit(&["plan", "shop.yaml"]).with(0),
        shop.godwit(&["run", "shop.yaml", "--until", "caught-up"]).with(0),
        shop.godwit(&["verify", "shop.yaml"]).with(0),
        shop.godwit(&["finish", "shop.yaml"]).with(2),
        shop.godwit(&["finish", "shop.yaml", "--yes"]).with(0),
    ];
    for ended in all {
        for text in [ended.stdout, ended.stderr] {
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        }
    }
}

#[test]
fn json_output_parses_and_has_a_version() {
    let shop = Shop::new();
    let run = shop.godwit(&["run", "shop.yaml", "--until", "caught-up", "--output", "json"]).with(0);
    assert_eq!(run.json()["v"], 1);
    assert_eq!(run.json()["result"], "run");
    let events: Vec<serde_json::Value> = run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["v"] == 1 && event["event"].is_string()), "{events:?}");
    assert!(events.iter().any(|event| event["event"] == "consistent"));
    assert!(events.iter().any(|event| event["event"] == "table_loaded" && event["rows"] == 3000));
    for arguments in
        [&["check", "shop.yaml"][..], &["plan", "shop.yaml"], &["check", "shop.yaml", "--grants"], &["explain"], &["explain", "name"]]
    {
        assert_eq!(shop.godwit(&[arguments, &["--output", "json"]].concat()).with(0).json()["v"], 1);
    }
    let error = shop.godwit(&["explain", "nothing", "--output", "json"]).with(2);
    let error: serde_json::Value = serde_json::from_str(&error.stderr).unwrap();
    assert_eq!((error["code"].as_str(), error["exit_status"].as_u64()), (Some("GW1010"), Some(2)));
    let finished = shop.godwit(&["finish", "shop.yaml", "--yes", "--output", "json"]).with(0);
    assert_eq!(finished.json()["equal"], true);
}

#[test]
fn check_and_plan_change_nothing() {
    let shop = Shop::new();
    shop.godwit(&["check", "shop.yaml"]).with(0);
    let plan = shop.godwit(&["plan", "shop.yaml", "--sql", "target.sql"]).with(0);
    assert!(plan.stdout.contains("main.account -> main.purse") && plan.stdout.contains("secret left out"), "{}", plan.stdout);
    assert!(std::fs::read_to_string(shop.path().join("target.sql")).unwrap().contains("CREATE TABLE \"purse\""));
    assert!(!shop.path().join("new.db").exists() && !shop.path().join("godwit-state").exists());
    assert_eq!(shop.traces(), 0);
}
