// Grafana's published type of a dashboard, with the options of each panel type. tests/it/deploy/grafana.rs appends
// `export const dashboard: Strict = {...}` and runs the compiler.
import type { AnnotationQuery, Dashboard, FieldConfig, FieldConfigSource, Panel, RowPanel } from "@grafana/schema";
import type * as BarGauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as Stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as Table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as Timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// JSON contains the string values of an enum, which TypeScript doesn't accept in place of its members.
type Plain<T> = T extends string
  ? `${T}`
  : T extends (infer Item)[]
    ? Plain<Item>[]
    : T extends object
      ? { [Key in keyof T]: Plain<T[Key]> }
      : T;

// The published `Panel` accepts any record as options. Grafana publishes the options of each panel type separately.
type Kind<Name extends string, Options, Custom> = Omit<Panel, "type" | "options" | "fieldConfig"> & {
  type: Name;
  options: Options;
  fieldConfig: Omit<FieldConfigSource, "defaults"> & {
    defaults: Omit<FieldConfig, "custom"> & { custom?: Partial<Custom> };
  };
};

type AnyPanel =
  | (Omit<RowPanel, "type"> & { type: "row" })
  | Kind<"timeseries", Timeseries.Options, Timeseries.FieldConfig>
  | Kind<"stat", Stat.Options, Record<string, never>>
  | Kind<"bargauge", BarGauge.Options, Record<string, never>>
  | Kind<"table", Table.Options, Table.FieldConfig>;

// The data source's own members of an annotation, which are not published.
type PrometheusAnnotation = Omit<AnnotationQuery, "target"> & {
  target: { refId: string; expr: string; interval: string; range: boolean; instant: boolean };
  titleFormat: string;
  textFormat: string;
  tagKeys: string;
  useValueForTime?: boolean;
};

type Strict = Plain<
  Omit<Dashboard, "panels" | "annotations"> & { panels: AnyPanel[]; annotations: { list: PrometheusAnnotation[] } }
>;
