//! `platform` where an image is asked for: it must be the image's own, for an image has one here.

use nuncio_runtime::image::{Image, Platform};
use serde::Deserialize;

use super::pull;
use crate::daemon::refusal::Refusal;

/// As the docker client sends it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    os: String,
    architecture: String,
    variant: String,
}

/// What a request asks for, as JSON or as `linux/amd64`; `None` is any.
pub(crate) fn parse(text: &str) -> Result<Option<Platform>, Refusal> {
    if !text.starts_with('{') {
        return pull::platform(text);
    }
    let wire: Wire = serde_json::from_str(text)
        .map_err(|error| Refusal::invalid(format!("invalid platform {text:?}: {error}")))?;
    let Wire {
        os,
        architecture,
        variant,
    } = wire;
    match variant.as_str() {
        "" => pull::platform(&format!("{os}/{architecture}")),
        variant => pull::platform(&format!("{os}/{architecture}/{variant}")),
    }
}

/// Refuses an image that is for another platform than `asked`.
pub(crate) fn check(asked: Option<&Platform>, image: &Image, name: &str) -> Result<(), Refusal> {
    let (os, architecture) = (image.config.os(), image.config.architecture());
    let own = format!("{os}/{architecture}");
    match asked {
        Some(asked) if own != format!("{}/{}", asked.os(), asked.architecture()) => {
            Err(Refusal::not_found(format!(
                "image with reference {name} was found but its platform ({own}) does not match the specified platform ({asked})"
            )))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_name_a_platform() {
        let parsed = |text| parse(text).map(|found| found.map(|found| found.to_string()));
        let arm = Some("linux/arm/v7".to_owned());
        let json = r#"{"os":"linux","architecture":"arm","variant":"v7"}"#;
        assert_eq!(parsed(json).expect("JSON"), arm);
        assert_eq!(parsed("linux/arm/v7").expect("text"), arm);
        assert_eq!(parsed("").expect("none"), None);
        for wrong in ["{", "{}", r#"{"os":"linux"}"#, "linux"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_platform_or_refused(text in ".{0,32}") {
            let _ = parse(&text);
            let _ = parse(&format!("{{{text}"));
        }
    }
}
