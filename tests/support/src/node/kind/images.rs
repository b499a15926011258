//! The images of nodes: which Kubernetes minors there are.

use anyhow::{Result, bail};

/// The release of kind that these images were built for, and that tests/kind pins.
#[cfg(test)]
const RELEASE: &str = "v0.33.0";
/// As the notes of that release list them. A tag alone may be another image later.
const IMAGES: [(&str, &str); 4] = [
    (
        "1.34",
        "kindest/node:v1.34.11@sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d",
    ),
    (
        "1.35",
        "kindest/node:v1.35.8@sha256:07b2536e30b803ed61d1677a79df6115f798ce64c80f9e22f6ed45afd09323c0",
    ),
    (
        "1.36",
        "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed",
    ),
    (
        "1.37",
        "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5",
    ),
];

/// The image for a minor such as `1.36`, the newest by default; what names an image is one already.
pub fn kind_image(kubernetes: Option<&str>) -> Result<&str> {
    let Some(wanted) = kubernetes else {
        return Ok(IMAGES[IMAGES.len() - 1].1);
    };
    if wanted.contains([':', '/', '@']) {
        return Ok(wanted);
    }
    let known = IMAGES.iter().find(|(minor, _)| *minor == wanted);
    let Some((_, image)) = known else {
        let minors = IMAGES.map(|(minor, _)| minor).join(", ");
        bail!(
            "no image of a kind node is known for Kubernetes {wanted}: choose from {minors}, or name \
             an image, as in KUBERNETES=kindest/node:v1.33.4"
        );
    };
    Ok(*image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools;

    #[test]
    fn a_minor_names_the_image_of_its_minor_and_nothing_the_newest() {
        for (minor, image) in IMAGES {
            assert_eq!(kind_image(Some(minor)).unwrap(), image);
            assert!(
                image.starts_with(&format!("kindest/node:v{minor}.")),
                "{image}"
            );
            let digest = image.split_once("@sha256:").unwrap().1;
            assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        assert!(kind_image(None).unwrap().contains(":v1.37."));
    }

    #[test]
    fn an_image_is_taken_as_it_is_and_an_unknown_minor_is_answered_with_the_known_ones() {
        let own = "registry.example.com/node:v1.40.0";
        assert_eq!(kind_image(Some(own)).unwrap(), own);
        let error = kind_image(Some("1.20")).unwrap_err().to_string();
        assert!(
            error.contains("Kubernetes 1.20") && error.contains("1.34, 1.35"),
            "{error}"
        );
    }

    #[test]
    fn the_images_are_those_of_the_pinned_release() {
        assert_eq!(tools::kind_version().unwrap(), RELEASE);
    }
}
