{{ config(group='scores') }}

-- Table 5 of the paper: Arena-Hard, of Instruct models as they are and of what was fine-tuned on a teacher's
-- completions.

select
    backbone, module, teacher, name, title,
    score, low, high, paper, quoted_from, difference, outside, expected, missing, complete, gain, p,
    p_corrected, judge, note
from {{ ref('score_cells') }}
where "table" = 'table_5'
order by place
