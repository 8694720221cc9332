//! How much of a device there is, and in which amounts it can be had.

use k8s_openapi::{
    api::resource::v1::{CapacityRequestPolicy, CapacityRequestPolicyRange, DeviceCapacity},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::{amount::Amount, device::each_once},
};

const MOST_VALUES: usize = 10;

/// A capacity; a device that only one claim can have is had as a whole.
pub(super) fn validate(errors: &mut Errors, capacity: &DeviceCapacity, shared: bool, path: &Path) {
    let Some(policy) = &capacity.request_policy else { return };
    let at = path.child("requestPolicy");
    if !shared {
        errors.push(FieldError::forbidden(&at, "allowMultipleAllocations must be true"));
        return;
    }
    if let Some(most) = Amount::of(&capacity.value) {
        validate_policy(errors, policy, most, &at);
    }
}

fn validate_policy(errors: &mut Errors, policy: &CapacityRequestPolicy, most: Amount, path: &Path) {
    let values = policy.valid_values.as_deref().unwrap_or_default();
    let default = policy.default.as_ref().and_then(Amount::of);
    match (values.is_empty(), &policy.valid_range, default) {
        (false, Some(_), _) => {
            let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the \
                          same time";
            errors.push(FieldError::forbidden(path, detail));
        }
        (false, None, None) => {
            let detail = "required when validValues is defined";
            errors.push(FieldError::required(&path.child("default"), detail));
        }
        (true, Some(_), None) => {
            let detail = "required when validRange is defined";
            errors.push(FieldError::required(&path.child("default"), detail));
        }
        (false, None, Some(default)) => {
            validate_values(errors, values, default, most, &path.child("validValues"));
        }
        (true, Some(range), Some(default)) => {
            validate_range(errors, range, default, most, &path.child("validRange"));
        }
        (true, None, _) => {}
    }
}

fn validate_values(errors: &mut Errors, values: &[Quantity], default: Amount, most: Amount, path: &Path) {
    let amounts: Vec<Amount> = values.iter().filter_map(Amount::of).collect();
    for (i, pair) in amounts.windows(2).enumerate() {
        if let [small, large] = pair
            && small > large
        {
            let detail = "values must be sorted in ascending order";
            errors.push(FieldError::invalid(&path.index(i + 1), large.to_string(), detail));
        }
    }
    let key = |amount: &Amount| BadValue::Text(amount.value().to_string());
    each_once(errors, &amounts, MOST_VALUES, path, key, |errors, amount, at| {
        if *amount > most {
            let detail = format!("option is larger than capacity value: {}", *most);
            errors.push(FieldError::invalid(at, amount.to_string(), detail));
        }
    });
    if !amounts.contains(&default) {
        let detail = "default value is not valid according to the requestPolicy";
        errors.push(FieldError::invalid(path, default.to_string(), detail));
    }
}

fn validate_range(
    errors: &mut Errors,
    range: &CapacityRequestPolicyRange,
    default: Amount,
    most: Amount,
    path: &Path,
) {
    let Some(min) = Amount::of(&range.min) else {
        errors.push(FieldError::required(&path.child("min"), "required when validRange is defined"));
        return;
    };
    let max = range.max.as_ref().and_then(Amount::of);
    let mut refuse = |field: &str, shown: Amount, detail: String| {
        errors.push(FieldError::invalid(&path.child(field), shown.to_string(), detail));
    };
    if min > most {
        refuse("min", min, format!("min is larger than capacity value: {}", *most));
    }
    if default < min {
        refuse("default", default, format!("default is less than min: {}", *min));
    }
    if let Some(max) = max {
        if min > max {
            refuse("max", min, format!("min is larger than max: {}", *max));
        }
        if max > most {
            refuse("max", max, format!("max is larger than capacity value: {}", *most));
        }
        if default > max {
            refuse("default", default, format!("default is more than max: {}", *max));
        }
    }
    let Some(step) = range.step.as_ref().and_then(Amount::of) else { return };
    if step.value() <= 0 {
        refuse("step", step, "must be greater than zero".to_owned());
        return;
    }
    let one = min.plus(step);
    if one > most {
        refuse("step", step, format!("one step {} is larger than capacity value: {}", *one, *most));
    }
    for value in std::iter::once(default).chain(max) {
        let distance = i128::from(value.value()) - i128::from(min.value());
        if distance % i128::from(step.value()) != 0 {
            let detail = format!("value is not a multiple of a given step ({}) from ({})", *step, *min);
            refuse("step", value, detail);
        }
    }
}
