//! The little of DER (X.690) that is needed where OpenSSL's crate has no function.

/// The tag of an object identifier.
const OBJECT_IDENTIFIER: u8 = 6;

/// Returns the content of the first value in `der`, and what follows it. `None` if it is cut off or absurdly long.
pub fn first_value(der: &[u8]) -> Option<(&[u8], &[u8])> {
    // A tag (one byte), and a length: one byte, or one that says how many bytes of the length follow (§8.1.3).
    let short_length = *der.get(1)?;
    let mut length = usize::from(short_length);
    let mut start = 2;
    if short_length >= 0x80 {
        let count = usize::from(short_length - 0x80);
        start += count;
        length = 0;
        for byte in der.get(2..start)? {
            length = length.checked_mul(256)?.checked_add(usize::from(*byte))?;
        }
    }
    let rest = der.get(start..)?;
    rest.split_at_checked(length)
}

/// Returns the content of the object identifier with which `der` begins.
pub fn object_identifier(der: &[u8]) -> Option<&[u8]> {
    let (content, _) = first_value(der)?;
    if der.first() == Some(&OBJECT_IDENTIFIER) {
        Some(content)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::property_tests;

    #[test]
    fn values() {
        let long = [&[4, 0x81, 0x80][..], &[7; 0x80], &[5, 0]].concat();
        assert_eq!(first_value(&long), Some((&[7; 0x80][..], &[5, 0][..])));
        assert_eq!(first_value(&[5, 0]), Some((&[][..], &[][..])));
        for cut_off in [&[][..], &[4], &[4, 2, 1], &[4, 0x82, 1], &[4, 0x81, 5, 1]] {
            assert_eq!(first_value(cut_off), None);
        }
        assert_eq!(object_identifier(&[6, 1, 42, 9]), Some(&[42][..]));
        assert_eq!(object_identifier(&[4, 1, 42]), None);
    }

    proptest! {
        #![proptest_config(property_tests::config())]

        #[test]
        fn any_bytes_have_a_value_or_none(bytes: Vec<u8>) {
            if let Some((content, rest)) = first_value(&bytes) {
                prop_assert!(content.len() + rest.len() + 2 <= bytes.len());
            }
        }
    }
}
