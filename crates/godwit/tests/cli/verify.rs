//! Differences are found, named, mended; what Godwit made is removed.

use crate::shop::Shop;

fn plant(shop: &Shop) {
    shop.new_one()
        .execute_batch(
            "UPDATE purse SET holder = 'someone else' WHERE id = 9;
             DELETE FROM \"Order\" WHERE code = 'sesame-12';
             INSERT INTO \"Order\" VALUES ('sesame-surplus', 1, 1.0);",
        )
        .unwrap();
}

#[test]
fn a_planted_difference_is_found_and_repaired() {
    let shop = Shop::new();
    shop.godwit(&["run", "shop.yaml", "--until", "consistent"]).with(0);
    plant(&shop);
    let found = shop.godwit(&["verify", "shop.yaml"]).with(1);
    assert!(found.stdout.contains("1 missing, 1 surplus") && found.stdout.contains("1 different"), "{}", found.stdout);
    let repaired = shop.godwit(&["verify", "shop.yaml", "--repair"]).with(0);
    assert!(repaired.stdout.contains("repaired: 3 rows"), "{}", repaired.stdout);
    shop.godwit(&["verify", "shop.yaml"]).with(0);
    shop.assert_equal();
}

#[test]
fn differences_are_told_by_numbers_where_no_person_reads() {
    let shop = Shop::new();
    shop.godwit(&["run", "shop.yaml", "--until", "consistent"]).with(0);
    plant(&shop);
    let json = shop.godwit(&["verify", "shop.yaml", "--output", "json"]).with(1);
    assert_eq!(json.json()["equal"], false);
    assert_eq!(json.json()["tables"][0]["target"], "main.Order");
    assert_eq!(json.json()["tables"][0]["missing"], 1);
    let plain = shop.godwit(&["verify", "shop.yaml"]).with(1);
    let log = std::fs::read_to_string(shop.state().join("godwit.log")).unwrap();
    for text in [&json.stdout, &json.stderr, &plain.stdout, &plain.stderr, &log] {
        assert!(!text.contains("sesame") && !text.contains("someone else"), "{text}");
    }
}

#[test]
fn rows_are_compared_while_users_write() {
    let shop = Shop::new();
    let writers = shop.writers();
    let run = shop.running();
    for _ in 0..3 {
        shop.godwit(&["verify", "shop.yaml"]).with(0);
    }
    writers.end();
    run.signal("INT");
    run.end().with(0);
}

#[test]
fn clean_asks_then_removes_everything_but_what_was_copied() {
    let shop = Shop::new();
    shop.godwit(&["run", "shop.yaml", "--until", "consistent"]).with(0);
    let asked = shop.godwit(&["clean", "shop.yaml"]).with(2);
    assert!(asked.stderr.contains("GW6007") && asked.stderr.contains("found: trigger godwit_"), "{}", asked.stderr);
    assert!(shop.traces() > 0);
    let cleaned = shop.godwit(&["clean", "shop.yaml", "--yes"]).with(0);
    assert!(cleaned.stdout.contains("removed: trigger godwit_"), "{}", cleaned.stdout);
    assert_eq!(shop.traces(), 0);
    assert!(!shop.state().exists());
    shop.assert_equal();
    // twice does no harm
    shop.godwit(&["clean", "shop.yaml", "--yes"]).with(0);
}
