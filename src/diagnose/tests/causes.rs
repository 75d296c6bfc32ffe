//! The page of causes is that of the code.

use crate::diagnose::Cause;

#[test]
fn the_page_of_causes_has_each_with_its_severity_and_all_columns() {
    let page = include_str!("../CAUSES.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let told: Vec<(&str, &str)> = rows.iter().map(|row| (row[0], row[1])).collect();
    let names: Vec<String> = Cause::ALL
        .iter()
        .map(|cause| format!("`{}`", cause.label()))
        .collect();
    let expected: Vec<(&str, &str)> = names
        .iter()
        .zip(Cause::ALL)
        .map(|(name, cause)| (&**name, cause.severity().label()))
        .collect();
    assert_eq!(told, expected);
    for row in &rows {
        assert_eq!(row.len(), 6, "{row:?}");
        // Meaning, evidence and what to do; neighbours only where there are any.
        for column in [2, 3, 5] {
            assert!(
                row[column].ends_with('.') || row[column].ends_with('?'),
                "{row:?}"
            );
        }
        // Causes that are named exist.
        let quoted = row[4].split('`').skip(1).step_by(2);
        for name in quoted {
            let is_cause = Cause::ALL.iter().any(|cause| cause.label() == name);
            assert!(is_cause, "{name} in {row:?}");
        }
    }
}
