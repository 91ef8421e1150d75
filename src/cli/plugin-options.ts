// Keys of the plugin's config as options of the command line: `rootfs_base_path` is `--rootfs-base-path`.
import { Option } from "commander";
import { pluginTable } from "../driver/config/plugin/plugin-config.ts";

export function pluginOptions(...keys: readonly string[]): Option[] {
  return Object.values(pluginTable).flatMap(({ key, help }) => {
    if (help.flag === undefined || (keys.length > 0 && !keys.includes(key))) return [];
    const [sentence = ""] = help.doc.split(/\.(?: |$)/, 1);
    const text = `${sentence} (default: ${help.default ?? "none"})`.replaceAll("`", "");
    const option = new Option(`--${key.replaceAll("_", "-")} <${help.flag}>`, text);
    return help.choices === undefined ? option : option.choices(help.choices);
  });
}

/** The config that the options' values give. */
export function toPluginConfig(values: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.values(pluginTable).map(({ key }) => [
      key,
      values[key.replaceAll(/_(\w)/g, (_, first: string) => first.toUpperCase())],
    ]),
  );
}
