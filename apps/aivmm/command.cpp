#include "command.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "base/log.hpp"
#include "base/text.hpp"
#include "terminal.hpp"

namespace ai_vmm::cli {

namespace {
constexpr const Command* kCommands[] = {&kRun, &kInspect, &kDevices,    &kPluginCheck,
                                        &kOps, &kConfig,  &kCompletion, &kHelp};

const Option* find(const Command& command, std::string_view name) {
  for (const Option& o : command.options)
    if (name == o.name) return &o;
  return nullptr;
}

Status usage(const Command& command, const std::string& what) {
  return Status(Code::invalid_argument, what + " See `aivmm help " + command.name + "`.");
}

// `text` in lines of at most `width` characters, each after the first indented.
std::string wrap(std::string_view text, size_t indent, size_t width) {
  std::string out;
  size_t column = indent;
  for (std::string_view word : split(text, ' ')) {
    if (column > indent && column + 1 + word.size() > width) {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
  return out;
}
}  // namespace

std::span<const Command* const> commands() { return kCommands; }

std::string Arguments::text(std::string_view option, std::string_view fallback) const {
  auto it = options.find(option);
  return it == options.end() ? std::string(fallback) : it->second.back();
}

std::vector<std::string> Arguments::all(std::string_view option) const {
  auto it = options.find(option);
  return it == options.end() ? std::vector<std::string>() : it->second;
}

Result<int64_t> Arguments::integer(std::string_view option, int64_t fallback, int64_t least, int64_t most) const {
  if (!has(option)) return fallback;
  std::string t = text(option);
  int64_t n = 0;
  auto [end, error] = std::from_chars(t.data(), t.data() + t.size(), n);
  if (error != std::errc() || end != t.data() + t.size() || n < least || n > most)
    return Status(Code::invalid_argument, std::string(option) + " is \"" + t + "\", but must be a whole number from " +
                                              std::to_string(least) + " to " + std::to_string(most) + ".");
  return n;
}

Result<Arguments> parse(const Command& command, std::span<const std::string> words) {
  Arguments a;
  const Option* open = nullptr;  // the option that NAME=… words still belong to
  bool only_operands = false;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (only_operands || word.size() < 2 || word[0] != '-') {
      if (open && word.find('=') != word.npos)
        a.options[open->name].push_back(word);
      else
        a.operands.push_back(word);
      continue;
    }
    open = nullptr;
    if (word == "--") {
      only_operands = true;
      continue;
    }
    size_t equals = word.find('=');
    std::string name = word.substr(0, equals);
    if (name == "-h") name = "--help";
    if (name == "--help") {
      a.options[name];
      continue;
    }
    const Option* option = find(command, name);
    if (!option) {
      std::vector<std::string> known = {"--help"};
      for (const Option& o : command.options) known.push_back(o.name);
      std::string near = nearest(name, known);
      return usage(command, "There is no option " + name + (near.empty() ? "." : "; did you mean " + near + "?"));
    }
    if (a.has(name) && !option->repeats) return usage(command, "Option " + name + " is given twice.");
    if (!option->value) {
      if (equals != word.npos) return usage(command, "Option " + name + " takes no value.");
      a.options[name];
      continue;
    }
    if (equals == word.npos && i + 1 == words.size())
      return usage(command, "Option " + name + " wants a value: " + name + " " + option->value + ".");
    std::string value = equals == word.npos ? words[++i] : word.substr(equals + 1);
    if (option->choices) {
      auto choices = split(option->choices, '|');
      if (std::find(choices.begin(), choices.end(), value) == choices.end())
        return usage(command, name + " is \"" + value + "\", but must be one of " + option->choices + ".");
    }
    a.options[name].push_back(value);
    if (option->repeats) open = option;
  }
  if (a.has("--help")) return a;
  if (a.operands.size() < command.least)
    return usage(command, std::string("`aivmm ") + command.name + "` wants " + command.operands + ".");
  if (a.operands.size() > command.most)
    return usage(command, "\"" + a.operands[command.most] + "\" is one argument too many.");
  return a;
}

std::string overview() {
  std::string s =
      "aivmm runs AI models on the best device of this machine, chosen by measurement.\n\n"
      "Usage: aivmm COMMAND …\n\nCommands:\n";
  for (const Command* c : kCommands)
    s += std::string("  ") + c->name + std::string(13 - std::string_view(c->name).size(), ' ') + c->summary + "\n";
  return s +
         "\n`aivmm help COMMAND` explains one of them; `aivmm --version` prints the version.\n"
         "Exit status: 0 success, 1 failure at run time, 2 wrong usage, 3 unsupported or invalid model.\n";
}

std::string help(const Command& command) {
  std::string s = std::string("aivmm ") + command.name + ": " + command.summary + ".\n\nUsage: aivmm " + command.name;
  if (*command.operands) s += std::string(" ") + command.operands;
  if (!command.options.empty()) s += " [OPTION …]";
  s += "\n\n" + std::string(command.details);
  if (!command.options.empty()) s += "\nOptions:\n";
  for (const Option& o : command.options) {
    std::string left =
        std::string("  ") + o.name + (o.value ? std::string(" ") + o.value : "") + (o.repeats ? " …" : "");
    constexpr size_t kColumn = 28;
    size_t shown = left.size() - (o.repeats ? 2 : 0);  // the ellipsis is one column, three bytes
    s += left + (shown + 2 > kColumn ? "\n" + std::string(kColumn, ' ') : std::string(kColumn - shown, ' '));
    s += wrap(o.doc + (o.choices ? " One of " + std::string(o.choices) + "." : std::string()), kColumn, 110) + "\n";
  }
  return s;
}

Result<Config> configure(const Arguments& arguments) {
  Config config = AI_VMM_TAKE(Config::load());
  for (const Setting& s : settings()) {
    std::string option = std::string("--") + s.name;
    std::replace(option.begin(), option.end(), '_', '-');
    if (!arguments.has(option)) continue;
    auto given = arguments.all(option);
    AI_VMM_TRY(config.set(s.name, given.empty() ? "true" : given.back(), Config::Source::command_line, option));
  }
  if (arguments.has("--strict"))
    AI_VMM_TRY(config.set("allow_reference", "false", Config::Source::command_line, "--strict"));
  set_log_level(config.text("log_level"));
  return config;
}

int complain(const Status& status, Exit exit) {
  std::fprintf(stderr, "%saivmm: error:%s %s\n", style(stderr, Style::red), style(stderr, Style::plain),
               status.message().c_str());
  return exit;
}

}  // namespace ai_vmm::cli
