#include <cstdio>

#include "base/text.hpp"
#include "command.hpp"

namespace ai_vmm::cli {

namespace {
std::string words(const Command& c) {
  std::string s = "--help";
  for (const Option& o : c.options) s += std::string(" ") + o.name;
  return s;
}

std::string spaced(const char* choices) {
  std::string s;
  for (std::string_view c : split(choices, '|')) s += (s.empty() ? "" : " ") + std::string(c);
  return s;
}

std::string names() {
  std::string s;
  for (const Command* c : commands()) s += (s.empty() ? "" : " ") + std::string(c->name);
  return s;
}

// Words of the command at hand; after an option with choices these; files otherwise.
std::string bash() {
  std::string s =
      "# bash completion of aivmm: source <(aivmm completion bash)\n"
      "_aivmm() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
      "  COMPREPLY=()\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    COMPREPLY=($(compgen -W \"" +
      names() +
      " --help --version\" -- \"$current\"))\n"
      "    return\n"
      "  fi\n"
      "  case \"${COMP_WORDS[1]} $previous\" in\n";
  for (const Command* c : commands())
    for (const Option& o : c->options)
      if (o.choices)
        s += std::string("    '") + c->name + " " + o.name + "') COMPREPLY=($(compgen -W \"" + spaced(o.choices) +
             "\" -- \"$current\")); return ;;\n";
  s += "    'help help') COMPREPLY=($(compgen -W \"" + names() +
       "\" -- \"$current\")); return ;;\n"
       "    'completion completion') COMPREPLY=($(compgen -W \"bash zsh fish\" -- \"$current\")); return ;;\n"
       "  esac\n"
       "  case \"$current\" in\n"
       "    -*)\n"
       "      case \"${COMP_WORDS[1]}\" in\n";
  for (const Command* c : commands())
    s += std::string("        ") + c->name + ") COMPREPLY=($(compgen -W \"" + words(*c) + "\" -- \"$current\")) ;;\n";
  return s +
         "      esac ;;\n"
         "    *=*) COMPREPLY=($(compgen -f -- \"${current#*=}\")) ;;\n"
         "    *) COMPREPLY=($(compgen -f -- \"$current\")) ;;\n"
         "  esac\n"
         "}\n"
         "complete -o filenames -F _aivmm aivmm\n";
}

// Text inside zsh's '[…]' and single quotes.
std::string zsh_text(std::string_view text) {
  std::string s;
  for (char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') s += '\\';
    if (c == '\'') s += "'\\'";
    s += c;
  }
  return s;
}

std::string zsh() {
  std::string s =
      "#compdef aivmm\n"
      "# zsh completion of aivmm: source <(aivmm completion zsh)\n"
      "_aivmm() {\n"
      "  if (( CURRENT == 2 )); then\n"
      "    local -a commands=(\n";
  for (const Command* c : commands()) s += std::string("      '") + c->name + ":" + zsh_text(c->summary) + "'\n";
  s += "    )\n    _describe command commands\n    return\n  fi\n"
       "  local command=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $command in\n";
  for (const Command* c : commands()) {
    s += std::string("    ") + c->name + ") _arguments '--help[this text]'";
    for (const Option& o : c->options) {
      s += std::string(" '") + (o.repeats ? "*" : "") + o.name + "[" + zsh_text(o.doc) + "]";
      if (o.value)
        s += ":" + zsh_text(o.value) + ":" + (o.choices ? "(" + spaced(o.choices) + ")" : std::string("_files"));
      s += "'";
    }
    if (c == &kHelp)
      s += " '1:command:(" + names() + ")'";
    else if (c == &kCompletion)
      s += " '1:shell:(bash zsh fish)'";
    else if (c->most)
      s += " '*:file:_files'";
    s += " ;;\n";
  }
  return s + "  esac\n}\ncompdef _aivmm aivmm\n";
}

std::string fish() {
  std::string s = "# fish completion of aivmm: aivmm completion fish | source\n";
  auto quoted = [](std::string_view text) {
    std::string q = "'";
    for (char c : text) q += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    return q + "'";
  };
  s += "complete -c aivmm -n __fish_use_subcommand -f\n";
  for (const Command* c : commands()) {
    s += std::string("complete -c aivmm -n __fish_use_subcommand -a ") + c->name + " -d " + quoted(c->summary) + "\n";
    for (const Option& o : c->options) {
      s += std::string("complete -c aivmm -n '__fish_seen_subcommand_from ") + c->name + "' -l " + (o.name + 2) +
           " -d " + quoted(o.doc);
      if (o.choices)
        s += " -x -a " + quoted(spaced(o.choices));
      else if (o.value)
        s += " -r";
      s += "\n";
    }
  }
  return s + "complete -c aivmm -n '__fish_seen_subcommand_from help' -f -a " + quoted(names()) +
         "\ncomplete -c aivmm -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'\n";
}

int run_completion(const Arguments& arguments) {
  const std::string& shell = arguments.operands[0];
  for (auto [name, make] : {std::pair("bash", &bash), {"zsh", &zsh}, {"fish", &fish}})
    if (shell == name) {
      std::fputs(make().c_str(), stdout);
      return kSuccess;
    }
  return complain(
      Status(Code::invalid_argument, "There is no completion for \"" + shell + "\"; there is for bash, zsh and fish."),
      kUsage);
}
}  // namespace

const Command kCompletion = {"completion",
                             "bash|zsh|fish",
                             1,
                             1,
                             "Print a script for shell completion",
                             "Examples:\n"
                             "  source <(aivmm completion bash)\n"
                             "  aivmm completion fish > ~/.config/fish/completions/aivmm.fish\n",
                             {},
                             run_completion};

}  // namespace ai_vmm::cli
