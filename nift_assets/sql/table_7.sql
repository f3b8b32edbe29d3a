{{ config(group='scores') }}

-- Table 7 of the paper: Arena-Hard and IFEval beside what others made of MAGPIE's instruction data.

select
    name, title, backbone, module, training_set, pairs, benchmark,
    score, low, high, paper, quoted_from, difference, outside, expected, missing, complete, gain, p,
    p_corrected, judge, note
from {{ ref('score_cells') }}
where "table" = 'table_7'
order by place
