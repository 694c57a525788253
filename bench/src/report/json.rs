//! A run as JSON, with the figures of each round.

use serde_json::{Map, Value, json};

use super::machine::Machine;
use super::samples::Samples;

pub(crate) fn text(samples: &Samples, machine: &Machine) -> String {
    let mut paths = Map::new();
    for path in samples.paths() {
        let mut figures = Map::new();
        for figure in samples.figures() {
            let rounds = samples.all(path.id, figure.id);
            if let Some(median) = samples.median(path.id, figure.id) {
                let measured = json!({ "median": median, "rounds": rounds });
                figures.insert(figure.id.to_owned(), measured);
            }
        }
        paths.insert(path.id.to_owned(), Value::Object(figures));
    }
    let run = json!({
        "v": 2,
        "suite": samples.suite.id,
        "revision": machine.revision,
        "time": machine.stamp(),
        "kernel": machine.kernel,
        "processor": machine.processor,
        "cores": machine.cores,
        "rounds": samples.rounds(),
        "paths": paths,
    });
    format!("{run:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::suite::AMBASSADOR;

    #[test]
    fn each_round_is_told() {
        let text = "1\tsocat\tbulk1\t1\n2\tsocat\tbulk1\t3\n";
        let samples = Samples::parse(text, &AMBASSADOR).expect("samples");
        let machine = Machine::here("abc");
        let run: Value = serde_json::from_str(&super::text(&samples, &machine)).expect("JSON");
        let expected = json!({ "socat": { "bulk1": { "median": 2.0, "rounds": [1.0, 3.0] } } });
        assert_eq!(run["paths"], expected);
        assert_eq!(
            (&run["revision"], &run["rounds"]),
            (&json!("abc"), &json!(2))
        );
    }
}
