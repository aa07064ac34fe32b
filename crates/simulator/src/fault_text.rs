//! The text form of a fault plan, for the command line and for `/_simulator/faults`.
//! The grammar stands at [`FaultPlan`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::duration;
use crate::fault::{ErrorStatus, Fault, FaultPlan, FaultRule, Malformed, Operation, RetryAfter, When};

const SLOW: Duration = Duration::from_secs(1);
const HUGE: usize = 2 << 20;

/// Why a fault plan cannot be read: the rule, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault rule {rule:?}: {problem}")]
pub struct FaultTextError {
    /// The rule as it was written.
    pub rule: String,
    /// What is wrong with it.
    pub problem: String,
}

impl FromStr for FaultPlan {
    type Err = FaultTextError;

    fn from_str(text: &str) -> Result<Self, FaultTextError> {
        let rules = text.split(|c: char| c.is_whitespace() || c == ';').filter(|rule| !rule.is_empty());
        Ok(Self { rules: rules.map(str::parse).collect::<Result<_, _>>()? })
    }
}

impl FromStr for FaultRule {
    type Err = FaultTextError;

    fn from_str(text: &str) -> Result<Self, FaultTextError> {
        parse_rule(text).map_err(|problem| FaultTextError { rule: text.to_owned(), problem })
    }
}

fn parse_rule(text: &str) -> Result<FaultRule, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [operation, fault, when] = parts[..] else {
        return Err("is not operation:fault:when, as in events:503:5%".to_owned());
    };
    let operation: Option<Operation> = match operation {
        "*" => None,
        named => Some(named.parse().map_err(|error| format!("operation {error}, *"))?),
    };
    let rule = FaultRule { operation, fault: parse_fault(fault)?, when: parse_when(when)? };
    match operation {
        Some(operation) if !rule.fault.fits(operation) => {
            Err(format!("{} makes no sense for {operation}", rule.fault))
        }
        _ => Ok(rule),
    }
}

fn parse_fault(text: &str) -> Result<Fault, String> {
    let mut parts = text.split('+');
    let (name, own) = match parts.next().unwrap_or_default().split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (parts_name(text), None),
    };
    let mut fault = parse_name(name, own)?;
    for parameter in parts {
        let Some((key, value)) = parameter.split_once('=') else {
            return Err(format!("parameter {parameter:?} is not name=value"));
        };
        let seconds = || value.parse().map_err(|_| format!("{key} must be whole seconds, not {value:?}"));
        match (&mut fault, key) {
            (Fault::Status { retry_after, .. }, "retry-after") => {
                *retry_after = Some(RetryAfter::Seconds(seconds()?))
            }
            (Fault::Status { retry_after, .. }, "retry-after-date") => {
                *retry_after = Some(RetryAfter::Date(seconds()?))
            }
            _ => return Err(format!("{name} has no parameter {key:?}")),
        }
    }
    Ok(fault)
}

fn parts_name(text: &str) -> &str {
    text.split('+').next().unwrap_or_default()
}

fn parse_name(name: &str, value: Option<&str>) -> Result<Fault, String> {
    let fault = match (name, value) {
        ("slow", Some(value)) => return Ok(Fault::Slow(duration::parse(value)?)),
        ("huge", Some(value)) => {
            let bytes = value.parse().ok().filter(|bytes| (1..=64 << 20).contains(bytes));
            return bytes
                .map(Fault::Huge)
                .ok_or_else(|| format!("huge must be 1 to 67108864 bytes, not {value:?}"));
        }
        ("malformed", Some(value)) => return Ok(Fault::Malformed(value.parse()?)),
        ("slow", None) => Fault::Slow(SLOW),
        ("huge", None) => Fault::Huge(HUGE),
        ("malformed", None) => Fault::Malformed(Malformed::NoType),
        ("reset-before", None) => Fault::Reset { after: false },
        ("reset-after", None) => Fault::Reset { after: true },
        ("cut", None) => Fault::Cut,
        ("token-expiry", None) => Fault::TokenExpiry,
        ("session-expiry", None) => Fault::SessionExpiry,
        ("html", None) => Fault::Html,
        ("invalid-json", None) => Fault::InvalidJson,
        ("unknown-fields", None) => Fault::UnknownFields,
        ("unknown-type", None) => Fault::UnknownType,
        ("unicode", None) => Fault::Unicode,
        ("control-characters", None) => Fault::ControlCharacters,
        ("duplicate-id", None) => Fault::DuplicateId,
        ("repeat", None) => Fault::Repeat,
        ("any", None) => Fault::Any,
        (status, None) => return parse_status(status),
        (other, Some(_)) => return Err(format!("{other:?} takes no value")),
    };
    Ok(fault)
}

fn parse_status(text: &str) -> Result<Fault, String> {
    let (number, after) = match text.strip_suffix("-after") {
        Some(number) => (number, true),
        None => (text.strip_suffix("-before").unwrap_or(text), false),
    };
    let status = match number {
        "5xx" => ErrorStatus::AnyServerError,
        number => match number.parse() {
            Ok(number @ 400..=599) => ErrorStatus::Exactly(number),
            _ => return Err(format!("unknown fault {text:?}: a status is 400 to 599 or 5xx")),
        },
    };
    Ok(Fault::Status { status, after, retry_after: None })
}

fn parse_when(text: &str) -> Result<When, String> {
    if text == "always" {
        return Ok(When::Probability(1.0));
    }
    if let Some(script) = text.strip_prefix('@') {
        let number = |text: &str| match text.parse::<u64>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{text:?} is not the number of a call, which start at 1")),
        };
        return match script.strip_prefix("every=") {
            Some(every) => Ok(When::Every(number(every)?)),
            None => Ok(When::Calls(script.split(',').map(number).collect::<Result<_, _>>()?)),
        };
    }
    let (digits, scale) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    match digits.parse::<f64>().map(|number| number / scale) {
        Ok(probability) if (0.0..=1.0).contains(&probability) => Ok(When::Probability(probability)),
        _ => {
            Err(format!("{text:?} is no time: a probability 0 to 1, a percentage, always, @3,7 or @every=10"))
        }
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.rules.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            rule.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for FaultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Some(operation) => write!(f, "{operation}:{}:{}", self.fault, self.when),
            None => write!(f, "*:{}:{}", self.fault, self.when),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Status { status, after, retry_after } => {
                match status {
                    ErrorStatus::Exactly(status) => write!(f, "{status}")?,
                    ErrorStatus::AnyServerError => f.write_str("5xx")?,
                }
                if *after {
                    f.write_str("-after")?;
                }
                return match retry_after {
                    None => Ok(()),
                    Some(RetryAfter::Seconds(seconds)) => write!(f, "+retry-after={seconds}"),
                    Some(RetryAfter::Date(seconds)) => write!(f, "+retry-after-date={seconds}"),
                };
            }
            Self::Slow(time) => return write!(f, "slow={}ms", time.as_millis()),
            Self::Huge(bytes) => return write!(f, "huge={bytes}"),
            Self::Malformed(how) => return write!(f, "malformed={how}"),
            Self::Reset { after: false } => "reset-before",
            Self::Reset { after: true } => "reset-after",
            Self::Cut => "cut",
            Self::TokenExpiry => "token-expiry",
            Self::SessionExpiry => "session-expiry",
            Self::Html => "html",
            Self::InvalidJson => "invalid-json",
            Self::UnknownFields => "unknown-fields",
            Self::UnknownType => "unknown-type",
            Self::Unicode => "unicode",
            Self::ControlCharacters => "control-characters",
            Self::DuplicateId => "duplicate-id",
            Self::Repeat => "repeat",
            Self::Any => "any",
        };
        f.write_str(name)
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probability(probability) => probability.fmt(f),
            Self::Every(every) => write!(f, "@every={every}"),
            Self::Calls(calls) => {
                let calls: Vec<String> = calls.iter().map(u64::to_string).collect();
                write!(f, "@{}", calls.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let text = "events:503:0.05 acknowledge:429+retry-after=2:0.02 events:reset-after:@3,7 *:5xx-after:1 \
                    token:429+retry-after-date=3:@every=4 events:slow=1500ms:0.5 events:huge=100000:@1 \
                    events:malformed=no-id:@2 *:any:0.05";
        let plan: FaultPlan = text.parse().unwrap();
        assert_eq!(plan.rules.len(), 9);
        assert_eq!(plan.to_string(), text);
        assert_eq!("*:5xx:5%".parse::<FaultPlan>().unwrap(), "*:5xx:0.05".parse().unwrap());
        assert_eq!("events:slow=1s:always;".parse::<FaultPlan>().unwrap(), "events:slow:1".parse().unwrap());
    }

    #[test]
    fn mistakes_are_named() {
        let problem = |text: &str| text.parse::<FaultPlan>().unwrap_err().to_string();
        assert!(problem("events:503").contains("is not operation:fault:when"));
        assert!(problem("event:503:1").contains("is not one of token, session_create"));
        assert!(problem("events:200:1").contains("unknown fault \"200\""));
        assert!(problem("events:503:7").contains("\"7\" is no time"));
        assert!(problem("events:503:@0").contains("start at 1"));
        assert!(problem("events:cut+retry-after=1:1").contains("cut has no parameter \"retry-after\""));
        assert!(problem("events:429+retry-after=soon:1").contains("whole seconds"));
        assert!(problem("token:session-expiry:1").contains("session-expiry makes no sense for token"));
        assert!(problem("events:malformed=upside-down:1").contains("is not one of no-type"));
        assert!(problem("events:cut=3:1").contains("takes no value"));
    }
}
