//! Names of a file as names of a model.

/// A step from the name that a tensor has in the file towards the one it has in the model.
pub(crate) enum Rename<'a> {
    StripPrefix(String),
    AddPrefix(String),
    Rule { from: Vec<String>, to: Vec<String> },
    Call(Box<dyn Fn(&str) -> String + 'a>),
}

impl Rename<'_> {
    /// A pattern of whole names between points.
    pub fn rule(from: &str, to: &str) -> Self {
        let names = |pattern: &str| match pattern {
            "" => Vec::new(),
            _ => pattern.split('.').map(str::to_owned).collect(),
        };
        Self::Rule { from: names(from), to: names(to) }
    }

    pub fn apply(&self, name: String) -> String {
        match self {
            Self::StripPrefix(prefix) => match name.strip_prefix(prefix.as_str()) {
                Some(rest) => rest.to_owned(),
                None => name,
            },
            Self::AddPrefix(prefix) => format!("{prefix}{name}"),
            Self::Rule { from, to } => replace(&name, from, to),
            Self::Call(f) => f(&name),
        }
    }
}

/// Replaces the first run of names that `from` matches. A `*` matches any one name; those of `to` are filled in order.
fn replace(name: &str, from: &[String], to: &[String]) -> String {
    let names: Vec<&str> = name.split('.').collect();
    let fits = |run: &[&str]| run.iter().zip(from).all(|(name, pattern)| pattern == "*" || name == pattern);
    let Some(at) = names.windows(from.len().max(1)).position(|run| !from.is_empty() && fits(run)) else {
        return name.to_owned();
    };
    let run = &names[at..at + from.len()];
    let mut any = run.iter().zip(from).filter(|(_, pattern)| *pattern == "*").map(|(name, _)| *name);
    let filled = to.iter().map(|name| if name == "*" { any.next().unwrap_or("*") } else { name });
    let (before, after) = (&names[..at], &names[at + from.len()..]);
    before.iter().copied().chain(filled).chain(after.iter().copied()).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_rule(from: &str, to: &str, name: &str) -> String {
        Rename::rule(from, to).apply(name.into())
    }

    #[test]
    fn a_rule_replaces_whole_names() {
        assert_eq!(by_rule("fc", "head", "fc.weight"), "head.weight");
        assert_eq!(by_rule("fc", "head", "model.fc.weight"), "model.head.weight");
        assert_eq!(by_rule("fc", "head", "fc1.weight"), "fc1.weight");
        assert_eq!(by_rule("model.encoder", "body", "model.encoder.0.bias"), "body.0.bias");
        assert_eq!(by_rule("gamma", "weight", "norm.gamma"), "norm.weight");
        assert_eq!(by_rule("model", "", "model.fc.weight"), "fc.weight");
        assert_eq!(by_rule("", "a", "fc.weight"), "fc.weight");
    }

    #[test]
    fn a_star_is_any_name_and_is_carried_over() {
        assert_eq!(by_rule("layer.*.attn", "blocks.*.attention", "layer.11.attn.w"), "blocks.11.attention.w");
        assert_eq!(by_rule("*.lin", "*.linear", "a.b.lin.weight"), "a.b.linear.weight");
        assert_eq!(by_rule("a.*.*", "b.*", "a.1.2.w"), "b.1.w");
        assert_eq!(by_rule("a.*", "b.*.*", "a.1"), "b.1.*");
    }

    #[test]
    fn a_prefix_that_is_missing_is_not_stripped() {
        let strip = Rename::StripPrefix("module.".into());
        assert_eq!(strip.apply("module.fc.bias".into()), "fc.bias");
        assert_eq!(strip.apply("fc.bias".into()), "fc.bias");
        assert_eq!(Rename::AddPrefix("encoder.".into()).apply("fc.bias".into()), "encoder.fc.bias");
    }
}
